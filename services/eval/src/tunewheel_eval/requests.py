"""Handles requests to judge a run again: who may ask, against which champion, and by which criteria.

The store notes once, beside the plans, which evaluation a request led to. So a request that is delivered
again, maybe after the champion changed, leads to the same evaluation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import EvalPassed, EvalRequested
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import (
    EvaluationPlan,
    EvaluationRequest,
    Precision,
    request_path,
)
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.passages.looking_up import LookUp
from tunewheel_eval.passages.scores import NO_ROWS
from tunewheel_eval.plan import (
    champion_of,
    is_in_production,
    make_plan,
    pin_later,
    read_manifest,
    read_plan,
    read_plans,
)
from tunewheel_eval.reviews import read_scorecard


@dataclass(frozen=True)
class Asked:
    """A request, with the state at the time when it is read."""

    request: EvalRequested
    desired: ServingDesired | None
    """The models that serve now. The one in production is the champion."""
    check: Callable[[EvalRequested], Awaitable[None]]
    """Raises InvalidEvent unless the person may ask now."""
    index: IndexVersioned | None = None
    """The project's newest index version."""


async def plan_again(
    store: ObjectStore,
    asked: Asked,
    look_up: LookUp,
    *,
    regression: ArtifactRef,
    precision: Precision = "float32",
) -> tuple[EvaluationPlan, DatasetManifest]:
    """Return the plan that a request leads to. Its first delivery pins the plan.

    A person's request about the model in production only informs. There are commands to take a model out of
    production; an evaluation must not do that.

    Raises:
        InvalidEvent: the run was never judged, the person may not ask, the criteria do not fit the task, or
            ``against`` names a model that is not in production.
    """
    request = asked.request
    first = await read_plan(store, request.run_id)
    if first is None or first.project != request.project:
        reason = f"{request.run_id!r} names no evaluated run of {request.project!r}; wait for its verdict"
        raise InvalidEvent(field="run_id", reason=reason)
    manifest = await read_manifest(store, first.dataset)
    note = request_path(request.run_id, request.event_id())
    if (data := await store.read(note)) is not None:
        earlier = EvaluationRequest.model_validate_json(data)
        plan = await read_plan(store, request.run_id, earlier.evaluation_id)
        if plan is not None:
            return plan, manifest
    by_registry = await _follows_a_pass(store, request)
    if not by_registry:
        await asked.check(request)
    champion = champion_of(asked.desired, candidate_id=first.adapter.model_id)
    if request.against and not by_registry and (not champion or champion.adapter.model_id != request.against):
        reason = f"{request.against!r} is not in production; leave it out to compare with what is"
        raise InvalidEvent(field="against", reason=reason)
    make = partial(
        make_plan,
        first,
        manifest,
        champion,
        regression=regression,
        criteria=request.criteria,
        precision=precision,
        in_production=not by_registry and is_in_production(asked.desired, first.adapter.model_id),
        index=asked.index,
        spent=asked.desired.spent if asked.desired else 0.0,
    )
    made = make()
    while not by_registry and await _lacks_cells(store, made):
        if not await look_up.works(made, manifest.spec.retrieval):
            break  # another scorecard would lack the cells too
        made = make(completes=made.evaluation_id)
    plan = await pin_later(store, made)
    await store.first(
        note, EvaluationRequest(evaluation_id=str(plan.evaluation_id)).model_dump_json().encode()
    )
    return plan, manifest


async def _lacks_cells(store: ObjectStore, plan: EvaluationPlan) -> bool:
    """Return whether a plan was judged while no passages could be looked up. Its scorecard and verdict stay.
    A new request gives another scorecard, which only informs: a request never gives a second verdict."""
    stored = await read_scorecard(store, plan)
    retrieval = stored[0].retrieval if stored is not None else None
    return retrieval is not None and retrieval.reason not in (None, NO_ROWS)


async def _follows_a_pass(store: ObjectStore, request: EvalRequested) -> bool:
    """Return whether the request is the registry's. It names no person and has no criteria. Its ``request``
    is the id of a pass of this run against a champion that has been replaced. Anybody could copy such a
    request, but it only leads to one more evaluation of a run that eval passed."""
    if request.principal is not None or request.criteria:
        return False
    plans = await read_plans(store, request.run_id)
    return request.request in {_pass_id(plan) for plan in plans if plan.informs is None}


def _pass_id(plan: EvaluationPlan) -> str:
    """Return the event id of the pass of ``plan``. It follows from the run and the evaluation alone."""
    values = {"project": plan.project, "run_id": plan.run_id, "evaluation_id": plan.evaluation_id}
    return EvalPassed.model_construct(**values).event_id()
