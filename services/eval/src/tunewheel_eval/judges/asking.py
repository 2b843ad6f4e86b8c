"""Asks a judge about pairs of answers. What it said is kept in the store, by judge: ids of pairs and values,
no text. So an evaluation that is interrupted, or repeated, asks for the rest."""

from __future__ import annotations

import asyncio
import math
import time
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
"""The share of these pairs, and at least one, that the same model may call otherwise. Engines compute in
batches, so it happens at temperature 0."""
LONGEST_SECONDS = 300.0
"""After this time an evaluation asks about no further pairs: other evaluations wait for its turn."""
_FIELD = f"dataset.spec.{JUDGE_FIELD}"
Check = Callable[[], None]
Values = dict[str, float | None]


class Told(Frozen):
    """``judged/<project>/<judge>.json``: values by ``item_id``; None: a reply could not be read."""

    values: Values = {}
    again: Values = {}
    """What pairs that were compared before got when they were asked about again, until all pairs of that
    judging are compared."""


class Compared(NamedTuple):
    values: Mapping[str, float | None]
    changed: int | None
    """See ``JudgeReport.changed``."""


class Judges:
    """Asks judges. ``allowed``: the hosts that may be asked. ``clock``: seconds."""

    def __init__(
        self, store: ObjectStore, allowed: AllowedSources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._allowed, self._clock = store, allowed, clock

    async def compare(
        self,
        spec: JudgeSpec,
        project: str,
        pairs: Sequence[ReviewItem],
        *,
        check: Check,
        longest_seconds: float = math.inf,
    ) -> Compared:
        """Return the judge's value of each pair: 1 the candidate's answer is better, 0 worse, .5 neither.
        None means that a reply could not be read.

        Pairs are kept from earlier evaluations unless the judge answers otherwise than before. Then all are
        asked about again. ``check`` raises if the evaluation must stop.

        Raises:
            InvalidEvent: the host of the judge is not allowed here.
            PassagesAway: the judge does not answer, or not in ``longest_seconds``. The values so far are
                kept, and the next call asks about the other pairs.
        """
        try:
            self._allowed.check_judge(spec)
        except InvalidSpec as error:
            raise InvalidEvent(field=f"dataset.spec.{error.field}", reason=error.reason) from error
        path, ends_at = f"judged/{project}/{spec.sha256}.json", self._clock() + longest_seconds
        told = await self._store.document(path, Told) or Told()
        of = {pair.item_id: pair for pair in pairs}
        both = of.keys() & told.values.keys()
        known = [*(name for name in told.again if name in both), *sorted(both - told.again.keys())][:AGAIN]

        async def ask(left: Sequence[ReviewItem], field: str) -> None:
            """Add the values of ``left`` to ``told``, and store them as they come."""
            nonlocal told
            for start in range(0, len(left), CONCURRENT):
                check()
                if self._clock() >= ends_at:
                    reason = (
                        f"the judge {spec.model} is slow: after {longest_seconds:.0f} seconds "
                        f"{len(left) - start} pairs are left, which are asked about later"
                    )
                    raise PassagesAway(reason, field=_FIELD)
                found = await _values(client, spec, left[start : start + CONCURRENT])
                told = told.model_copy(update={field: getattr(told, field) | found})
                await self._store.replace(path, told.model_dump_json().encode())

        async with open_chat(spec.base_url, spec.api_key_env, timeout_seconds=spec.timeout_seconds) as client:
            await ask([of[name] for name in known if name not in told.again], "again")
            changed = sum(told.again[name] != told.values[name] for name in known)
            if is_another := changed > max(1.0, MOST_CHANGED * len(known)):
                log.warning(
                    "judge_changed", project=project, judge=spec.model, changed=changed, of=len(known)
                )
            field = "again" if is_another else "values"
            await ask([pair for name, pair in of.items() if name not in getattr(told, field)], field)
        values: Values = getattr(told, field)
        await self._store.replace(path, Told(values=values).model_dump_json().encode())
        return Compared({name: values[name] for name in of}, changed if is_another else None)


async def _values(client: AsyncOpenAI, spec: JudgeSpec, pairs: Sequence[ReviewItem]) -> Values:
    values = await asyncio.gather(*(_value(client, spec, one) for one in pairs), return_exceptions=True)
    found: Values = {}
    for pair, value in zip(pairs, values, strict=True):
        if isinstance(value, ChatAway):
            raise _away(spec, value) from value
        if isinstance(value, BaseException):
            raise value
        found[pair.item_id] = value
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


def _away(spec: JudgeSpec, error: ChatAway) -> PassagesAway:
    async def ask_again() -> None:
        async with open_chat(spec.base_url, spec.api_key_env, timeout_seconds=spec.timeout_seconds) as probe:
            try:
                await reply_of(probe, spec.model, [{"role": "user", "content": "ready?"}], as_json=False)
            except ChatRefused:
                return
            except ChatAway as still:
                raise TransientError(str(still)) from still

    reason = f"the judge {spec.model} does not answer: {error}"
    return PassagesAway(reason, field=_FIELD, ask_again=ask_again)
