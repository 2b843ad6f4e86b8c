"""Compares what an engine answers under a model's name with what eval measured of the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.fingerprint import PROMPTS, NextTokens

from tunewheel_serve_gateway.upstream.protocol import Upstream, UpstreamError, UpstreamRefused

log = structlog.get_logger(__name__)
MOST_LOGPROBS = 20
"""The most alternatives that OpenAI's API, vLLM and ``tunewheel-engine`` list."""
PROBE_SECONDS = 10.0
"""Longest wait for the answers. After it the model is served, and asked again later: an engine's queue may be
long."""
AGAIN_SECONDS = 900.0
"""Time between two comparisons of a model."""
SOON_SECONDS = 60.0
"""The same after a comparison that found a difference, or whose prompts the engine did not answer."""
IN_FLOAT32, IN_OTHERS = 0.02, 0.25
"""The largest difference that is taken for rounding, in nats: between engines that are known to compute in
float32, and otherwise. See docs/measurements/serving.md."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The last comparison of a model at an engine."""

    recorded: tuple[NextTokens, ...] = ()
    again_at: float = 0.0
    """Monotonic seconds; 0: the model was never compared."""
    is_known: bool = False
    """Whether the engine gave log-probabilities."""
    difference: str | None = None
    """The prompt that is answered otherwise, and by how much."""

    @property
    def is_due(self) -> bool:
        return self.again_at <= time.monotonic()


NOTHING_RECORDED = Compared(again_at=float("inf"), is_known=True)


async def compare(client: Upstream, name: str, bundle: Bundle, *, is_exact: bool) -> Compared:
    """Ask an engine the recorded prompts, one token each.

    ``name``: the model's name at the engine. ``is_exact``: the model was judged in float32, and the engine
    reports float32. An engine that does not answer in time, or gives no log-probabilities, is not known to
    differ.
    """
    recorded = [one for one in bundle.fingerprint if one.prompt in PROMPTS]
    seconds, pairs = AGAIN_SECONDS, list[tuple[NextTokens, dict[str, float]]]()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            for one in recorded:
                pairs.append((one, likeliest(await client.complete(_body(name, one.prompt, bundle)))))
    except (TimeoutError, UpstreamError) as error:
        is_refused = isinstance(error, UpstreamRefused) and error.status != 429
        seconds = AGAIN_SECONDS if is_refused else SOON_SECONDS
        log.warning("fingerprint_unknown", model=name, reason=str(error) or "no answer in time")
    is_known = bool(recorded) and len(pairs) == len(recorded) and all(listed for _, listed in pairs)
    difference = _difference(pairs, IN_FLOAT32 if is_exact else IN_OTHERS) if is_known else None
    seconds = seconds if difference is None else SOON_SECONDS
    return Compared(bundle.fingerprint, time.monotonic() + seconds, is_known, difference)


def distance(recorded: NextTokens, listed: Mapping[str, float]) -> float:
    """Return the root mean square of the differences between the recorded log-probabilities and those that an
    engine ``listed``, in nats. The engine's likeliest tokens count too, as many as are recorded. A token that
    one side lacks was there at most as likely as the last token of that side.

    Engines write white space and incomplete characters of tokens differently: the former is ignored, tokens
    with the latter are left out.
    """
    ours = _by_text((one.text, one.logprob) for one in recorded.tokens)
    theirs = _by_text(listed.items())
    if not ours or not theirs:
        return 0.0
    least, last = min(theirs.values()), min(ours.values())
    head = sorted(theirs, key=lambda text: -theirs[text])[: len(ours)]
    gaps = [value - theirs.get(text, min(least, value)) for text, value in ours.items()]
    gaps += [theirs[text] - min(last, theirs[text]) for text in head if text not in ours]
    return (sum(gap * gap for gap in gaps) / len(gaps)) ** 0.5


def _by_text(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the likeliest token of each text."""
    found: dict[str, float] = {}
    for text, logprob in tokens:
        if (name := text.strip()) and "\ufffd" not in name:
            found[name] = max(logprob, found.get(name, logprob))
    return found


def _difference(pairs: list[tuple[NextTokens, dict[str, float]]], limit: float) -> str | None:
    """Return the text for the prompt with the largest difference, if it is above ``limit``."""
    distances = {one.prompt: distance(one, listed) for one, listed in pairs}
    prompt = max(distances, key=lambda name: distances[name])
    if distances[prompt] <= limit:
        return None
    return (
        f"answers the prompt {prompt!r} otherwise than the model that was judged: the log-probabilities of "
        f"the next token differ by {distances[prompt]:.2f} (at most {limit} is rounding); start the engine "
        "with the judged weights, precision, quantization and chat template"
    )


def _body(name: str, prompt: str, bundle: Bundle) -> dict[str, Any]:
    messages = [dict(message) for message in PROMPTS[prompt]]
    logprobs = {"logprobs": True, "top_logprobs": MOST_LOGPROBS}
    template = {"chat_template_kwargs": variables} if (variables := bundle.chat_template_kwargs) else {}
    return {"model": name, "messages": messages, "max_tokens": 1, "temperature": 0.0, **logprobs, **template}


def likeliest(answer: dict[str, Any]) -> dict[str, float]:
    """Return the log-probabilities of the likeliest first tokens by their texts; empty: the engine gives
    none."""
    try:
        listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(one["token"]): float(one["logprob"]) for one in listed}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
