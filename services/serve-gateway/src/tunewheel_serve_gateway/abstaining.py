"""Holds answers back until the gateway knows how sure the model is of them, and sends a refusal in place of
those of which it is not sure enough.

The bundle that was judged holds the least confidence. The project's present spec says whether the project
abstains at all, so that declaring a spec without ``serving.abstain`` ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.recording import measured
from tunewheel_serve_gateway.errors import Headers
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.protocol import Chunk

log = structlog.get_logger(__name__)
CONFIDENCE = b"x-tunewheel-confidence"
IN_CHUNK = "tunewheel_confidence"
"""The field of a held stream's last chunk with a choice. A heartbeat may have sent the headers before."""
NOT_THE_TASK = frozenset({"system_prompt", "tools"})
"""A request that replaces one of these asks for something else than the model was judged on."""
REFUSAL = "The model is not sure enough of its answer to this question, so none is given. Ask a person."


@dataclass(frozen=True)
class Abstaining:
    """``spec_of`` returns a project's present spec."""

    spec_of: Callable[[str], ProjectSpec | None]

    def holds(self, request: ChatRequest, target: Target, overrides: Sequence[str]) -> bool:
        """Return whether the answer is held back until its confidence is known."""
        spec, certainty = self.spec_of(target.project), target.bundle.certainty if target.bundle else None
        abstains = spec is not None and spec.serving.abstain is not None
        is_one = (request.parameters.get("n") or 1) == 1
        is_of_task = NOT_THE_TASK.isdisjoint(overrides)
        return abstains and certainty is not None and certainty.least is not None and is_one and is_of_task

    async def judge(self, exchange: Exchange, target: Target) -> Headers:
        """Measure the confidence in a whole answer, and return the headers that tell it. A held answer of
        which the model is not sure enough, or whose confidence no engine gave, is taken out of
        ``exchange``."""
        certainty, spec = target.bundle.certainty if target.bundle else None, self.spec_of(target.project)
        if not exchange.is_sampled or certainty is None or spec is None:
            return []
        found, sure = await asyncio.to_thread(_judged, exchange, spec.task, target)
        if exchange.is_held and spec.serving.abstain is not None:
            exchange.certainty = sure
            if sure is None:
                log.warning("confidence_unknown", project=exchange.project, model=exchange.model_id)
            if sure is None or sure < (certainty.least or 0.0):
                exchange.abstain(found, spec.serving.abstain.reply or REFUSAL)
        headers: Headers = [] if sure is None else [(CONFIDENCE, f"{sure:.3f}".encode())]
        return [*headers, (b"x-tunewheel-abstained", b"true")] if exchange.abstained else headers


def _judged(exchange: Exchange, task: TaskSpec, target: Target) -> tuple[Confidence | None, float | None]:
    from tunewheel_outputs.confidence import certainty_of

    assert target.bundle is not None
    assert target.bundle.certainty is not None
    if (judged := target.bundle.certainty.label_field) is not None:  # the present spec may name another
        task = task.model_copy(update={"label_field": judged})
    found = measured(exchange, task)
    return found, certainty_of(found, target.bundle.certainty)


def refused(answer: dict[str, Any], refusal: str) -> dict[str, Any]:
    """Return a whole ``chat.completion`` with ``refusal`` in place of the answer."""
    message = {"role": "assistant", "content": None, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**answer, "choices": [choice]}


def told(chunks: Sequence[Chunk], exchange: Exchange) -> list[Chunk]:
    """Return the chunks of a held stream as they are sent: a refusal in place of those with text, and the
    confidence in the last one with a choice."""
    sent = list(chunks)
    if exchange.abstained and sent:
        usual = {key: value for key, value in chunks[0].items() if key not in ("choices", "usage")}
        said = {"role": "assistant", "content": None, "refusal": exchange.refusal}
        spoken = [
            {**usual, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}
            for delta, finish in ((said, None), (dict[str, Any](), "stop"))
        ]
        sent = [*spoken, *({**one, "choices": []} for one in chunks if one.get("usage"))]
    last = next((place for place in range(len(sent) - 1, -1, -1) if sent[place].get("choices")), None)
    if last is not None and exchange.certainty is not None:
        sent[last] = {**sent[last], IN_CHUNK: round(exchange.certainty, 3)}
    return sent
