"""Asks a judge about pairs of answers. What it said is kept in the store, by judge: ids of pairs and values,
no text. So an evaluation that is interrupted, or repeated, asks for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.allowed_sources import JUDGE_FIELD, AllowedSources
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.review import ReviewItem
from tunewheel_runtime.chat import ChatAway, ChatRefused, open_chat, reply_of
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.errors import PassagesAway
from tunewheel_eval.judges.prompting import chosen, messages_of, value_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = structlog.get_logger(__name__)
CONCURRENT = 4
"""How many pairs a judge compares at the same time, each in both orders."""
AGAIN = 20
"""How many pairs that were compared before are asked about again, to see whether the judge is the same."""
MOST_CHANGED = 0.2
"""The share of these pairs that the same model may call otherwise. Engines compute in batches, so it happens
at temperature 0."""
Check = Callable[[], None]


class Told(Frozen):
    """``judged/<project>/<judge>.json``: values by ``item_id``; None: a reply could not be read."""

    values: dict[str, float | None] = {}


class Compared(NamedTuple):
    values: Mapping[str, float | None]
    changed: int | None
    """See ``JudgeReport.changed``."""


class Judges:
    """Asks judges. ``allowed``: the hosts that may be asked."""

    def __init__(self, store: ObjectStore, allowed: AllowedSources) -> None:
        self._store, self._allowed = store, allowed

    async def compare(
        self, spec: JudgeSpec, project: str, pairs: Sequence[ReviewItem], *, check: Check
    ) -> Compared:
        """Return the judge's value of each pair: 1 the candidate's answer is better, 0 worse, .5 neither.
        None means that a reply could not be read.

        Pairs are kept from earlier evaluations unless the judge answers otherwise than before. Then all are
        asked about again. ``check`` raises if the evaluation must stop.

        Raises:
            InvalidEvent: the host of the judge is not allowed here.
            PassagesAway: the judge does not answer.
        """
        try:
            self._allowed.check_judge(spec)
        except InvalidSpec as error:
            raise InvalidEvent(field=f"dataset.spec.{error.field}", reason=error.reason) from error
        path = f"judged/{project}/{spec.sha256}.json"
        data = await self._store.read(path)
        kept = dict(Told.model_validate_json(data).values) if data is not None else {}
        of = {pair.item_id: pair for pair in pairs}
        known = sorted(of.keys() & kept.keys())[:AGAIN]
        async with open_chat(spec.base_url, spec.api_key_env, timeout_seconds=spec.timeout_seconds) as client:
            again = await self._ask(client, spec, [of[name] for name in known], {}, None, check)
            changed = sum(again[name] != kept[name] for name in known)
            if changed > MOST_CHANGED * len(known):
                log.warning(
                    "judge_changed", project=project, judge=spec.model, changed=changed, of=len(known)
                )
                kept = again
            else:
                changed = None
            left = [pair for name, pair in of.items() if name not in kept]
            kept = await self._ask(client, spec, left, kept, path, check)
        return Compared({name: kept[name] for name in of}, changed)

    async def _ask(
        self,
        client: AsyncOpenAI,
        spec: JudgeSpec,
        pairs: Sequence[ReviewItem],
        kept: Mapping[str, float | None],
        path: str | None,
        check: Check,
    ) -> dict[str, float | None]:
        """Return ``kept`` with the values of ``pairs``. Values are stored as they come."""
        found = dict(kept)
        for start in range(0, len(pairs), CONCURRENT):
            check()
            some = pairs[start : start + CONCURRENT]
            values = await asyncio.gather(
                *(_value(client, spec, one) for one in some), return_exceptions=True
            )
            for pair, value in zip(some, values, strict=True):
                if isinstance(value, ChatAway):
                    raise _away(client, spec, value) from value
                if isinstance(value, BaseException):
                    raise value
                found[pair.item_id] = value
            if path is not None:
                await self._store.replace(path, Told(values=found).model_dump_json().encode())
        return found


async def _value(client: AsyncOpenAI, spec: JudgeSpec, pair: ReviewItem) -> float | None:
    said: list[str] = []
    for candidate_first in (True, False):
        messages = messages_of(spec.prompt, pair, candidate_first=candidate_first)
        try:
            reply = chosen(await reply_of(client, spec.model, messages))
        except ChatRefused:  # of this pair: its texts may be too long
            reply = None
        if reply is None:
            return None
        said.append(reply)
    return value_of(*said)


def _away(client: AsyncOpenAI, spec: JudgeSpec, error: ChatAway) -> PassagesAway:
    async def ask_again() -> None:
        async with open_chat(spec.base_url, spec.api_key_env, timeout_seconds=spec.timeout_seconds) as probe:
            try:
                await reply_of(probe, spec.model, [{"role": "user", "content": "ready?"}], as_json=False)
            except ChatRefused:
                return
            except ChatAway as still:
                raise TransientError(str(still)) from still

    reason = f"the judge {spec.model} does not answer: {error}"
    return PassagesAway(reason, field=f"dataset.spec.{JUDGE_FIELD}", ask_again=ask_again)
