"""Requests another evaluation of a run on the log, and reads what came of it from the object store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.errors import TunewheelError, first_complaint
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.fields import Slug
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.evaluation_plan import (
    EvaluationPlan,
    EvaluationRequest,
    first_plan_path,
    later_plan_path,
    request_path,
)
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.topics import EVAL_REQUESTED

if TYPE_CHECKING:
    from tunewheel_runtime.store import ObjectStore

LOOK_SECONDS = 1.0
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)
_CRITERIA: TypeAdapter[tuple[Criterion, ...]] = TypeAdapter(tuple[Criterion, ...])


class UnknownEvaluation(TunewheelError):
    """The store holds no such evaluation, or the evaluation is not finished yet."""


class RequestRefused(TunewheelError):
    """Eval refused to evaluate a run again."""


@dataclass(frozen=True)
class Judged:
    """One finished evaluation."""

    plan: EvaluationPlan
    scorecard: Scorecard


async def read_judged(store: ObjectStore, run_id: str, evaluation_id: str | None = None) -> Judged:
    """Return a run's evaluation by its id; None: the last finished one.

    Raises:
        UnknownEvaluation: there is none, or it is not finished yet.
        TransientError: the store is away.
    """
    plan = await read_plan(store, run_id)
    if evaluation_id is None:
        plan = await _last_judged(store, plan)
    elif evaluation_id != plan.evaluation_id:
        plan = await read_plan(store, run_id, evaluation_id)
    data = await store.read(plan.scorecard_path)
    if data is None:
        named = evaluation_id or run_id
        raise UnknownEvaluation(f"run: {named} is not judged yet; `tunewheel status` says whether eval runs")
    return Judged(plan, decode_data(Scorecard, data))


async def _last_judged(store: ObjectStore, first: EvaluationPlan) -> EvaluationPlan:
    """Return the plan of the newest scorecard of ``first``'s run; ``first`` if there is no scorecard."""
    later = await store.list(f"runs/{first.run_id}/evaluations")
    plans = [first, *[EvaluationPlan.model_validate_json(await store.read(path) or b"") for path in later]]
    cards = await store.written("scorecards")
    judged = [plan for plan in plans if plan.scorecard_path in cards]
    return max(judged, key=lambda plan: cards[plan.scorecard_path], default=first)


async def judge_again(
    options: Mapping[str, Any], store: ObjectStore, event: Envelope[EvalRequested], *, timeout_seconds: float
) -> Judged | None:
    """Publish a request and wait for its scorecard; None: it does not come in time.

    Raises:
        RequestRefused: eval refused the request, with the field and the reason.
        TransientError: Kafka or the store is away.
    """
    from tunewheel_testing.sender import publish_events

    await publish_events(options, event)
    run_id = event.data.run_id
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                note = await store.read(request_path(run_id, event.id))
                if note is not None:
                    evaluation_id = EvaluationRequest.model_validate_json(note).evaluation_id
                    try:
                        return await read_judged(store, run_id, evaluation_id)
                    except UnknownEvaluation:
                        pass  # the evaluation is not finished yet
                else:
                    await _check_refused(options, event)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return None


async def _check_refused(options: Mapping[str, Any], event: Envelope[EvalRequested]) -> None:
    from tunewheel_testing.dead_letters import read_dead_letters

    async for letter in read_dead_letters(options, [EVAL_REQUESTED]):
        if letter.event_id == event.id:
            raise RequestRefused(f"{letter.field}: {letter.reason}")


async def read_plan(store: ObjectStore, run_id: str, evaluation_id: str | None = None) -> EvaluationPlan:
    """Return the plan of a run's evaluation; ``evaluation_id`` None: of its first.

    Raises:
        UnknownEvaluation: eval has no such run or evaluation.
        TransientError: the store is away.
    """
    for name in (run_id, evaluation_id or run_id):
        try:
            _SLUG.validate_python(name)
        except ValidationError as error:
            raise UnknownEvaluation(f"run: {name!r} {first_complaint(error)[1]}") from None
    path = first_plan_path(run_id) if evaluation_id is None else later_plan_path(run_id, evaluation_id)
    data = await store.read(path)
    if data is None:
        what = f"evaluation {evaluation_id}" if evaluation_id else "evaluation"
        raise UnknownEvaluation(
            f"run: {store.url} holds no {what} of {run_id}; `tunewheel status` lists runs"
        )
    return EvaluationPlan.model_validate_json(data)
