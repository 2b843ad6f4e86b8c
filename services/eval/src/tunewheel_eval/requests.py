"""Handles requests to judge a run again: who may ask, against which champion, and by which criteria.

The store notes once, beside the plans, which evaluation a request led to. So a request that is delivered
again, maybe after the champion changed, leads to the same evaluation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalPassed, EvalRequested, EvalUndecided
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

from tunewheel_eval.judges.judged import ReviewedPairs
from tunewheel_eval.passages.looking_up import LookUp
from tunewheel_eval.passages.scores import NO_ROWS
from tunewheel_eval.plan import (
    RowsOf,
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
    versions: dict[str, DatasetVersioned] = field(default_factory=dict[str, DatasetVersioned])
    """The project's dataset versions by ``dataset_id``, the oldest first."""


class Versions:
    """A fold over ``dataset.versioned``. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[str, DatasetVersioned]] = defaultdict(dict)

    def apply(self, event: Envelope[Any]) -> None:
        """Apply one event."""
        if isinstance(event.data, DatasetVersioned):
            self._of[event.data.project].setdefault(event.data.dataset_id, event.data)

    def of(self, project: str) -> dict[str, DatasetVersioned]:
        """Return the versions of ``project`` by ``dataset_id``, the oldest first."""
        return dict(self._of.get(project, {}))


async def plan_again(
    store: ObjectStore,
    asked: Asked,
    look_up: LookUp,
    people: ReviewedPairs,
    *,
    regression: ArtifactRef,
    precision: Precision = "float32",
) -> tuple[EvaluationPlan, DatasetManifest]:
    """Return the plan that a request leads to. Its first delivery pins the plan.

    A person's request about the model in production only informs. There are commands to take a model out of
    production; an evaluation must not do that. Raises InvalidEvent: the run was never judged, the person may
    not ask, the criteria do not fit the task, ``against`` names a model that is not in production, or
    ``dataset_id`` no version with the run's task.
    """
    request = asked.request
    first = await read_plan(store, request.run_id)
    if first is None or first.project != request.project:
        reason = f"{request.run_id!r} names no evaluated run of {request.project!r}; wait for its verdict"
        raise InvalidEvent(field="run_id", reason=reason)
    manifest = await read_manifest(store, first.dataset)
    note = request_path(request.run_id, request.event_id())
    if (earlier := await store.document(note, EvaluationRequest)) is not None:
        plan = await read_plan(store, request.run_id, earlier.evaluation_id)
        if plan is not None:
            return plan, manifest
    by_registry = await _follows_a_verdict(store, request)
    if not by_registry:
        await asked.check(request)
    champion = champion_of(asked.desired, candidate_id=first.adapter.model_id)
    if request.against and not by_registry and (not champion or champion.adapter.model_id != request.against):
        reason = f"{request.against!r} is not in production; leave it out to compare with what is"
        raise InvalidEvent(field="against", reason=reason)
    rows = None if by_registry else await _rows_of(store, asked, first, manifest)
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
        rows=rows,
        reviewed=await people.sha256(manifest.spec, request.criteria or manifest.spec.criteria),
    )
    made = make()
    while not by_registry and await _lacks_cells(store, made):
        if not await look_up.works(made, manifest.spec.retrieval):
            break  # another scorecard would lack the cells too
        made = make(completes=made.evaluation_id)
    plan = await pin_later(store, made)
    await store.first_document(note, EvaluationRequest(evaluation_id=str(plan.evaluation_id)))
    return plan, manifest


async def _rows_of(
    store: ObjectStore, asked: Asked, run: EvaluationPlan, manifest: DatasetManifest
) -> RowsOf | None:
    """Return the version whose held-out rows the request is about; None: the run's own."""
    wanted = asked.request.dataset_id or next(reversed(asked.versions), run.dataset_id)
    if wanted == run.dataset_id:
        return None
    if (version := asked.versions.get(wanted)) is None:
        reason = f"{wanted!r} names no dataset version of {run.project!r}; leave it out for the newest"
        raise InvalidEvent(field="dataset_id", reason=reason)
    other = await read_manifest(store, version.manifest)
    if other.spec.task != manifest.spec.task:
        reason = (
            f"{wanted} has another task (prompt, schema or rules) than {run.dataset_id}, which the run was "
            f"trained on; name {run.dataset_id} to judge by the run's own rows"
        )
        raise InvalidEvent(field="dataset_id", reason=reason)
    return RowsOf(version.dataset_id, version.manifest)


async def _lacks_cells(store: ObjectStore, plan: EvaluationPlan) -> bool:
    """Return whether a plan was judged while no passages could be looked up. Its scorecard and verdict stay.
    A new request gives another scorecard, which only informs: a request never gives a second verdict."""
    stored = await read_scorecard(store, plan)
    retrieval = stored[0].retrieval if stored is not None else None
    return retrieval is not None and retrieval.reason not in (None, NO_ROWS)


async def _follows_a_verdict(store: ObjectStore, request: EvalRequested) -> bool:
    """Return whether the request is the registry's. It names no person and has no criteria. Its ``request``
    is the id of a pass of this run, or of an undecided verdict on it, against a champion that has been
    replaced. Anybody could copy such a request, but it only leads to one more evaluation of such a run."""
    if request.principal is not None or request.criteria:
        return False
    plans = await read_plans(store, request.run_id)
    return request.request in {name for plan in plans if plan.informs is None for name in _verdict_ids(plan)}


def _verdict_ids(plan: EvaluationPlan) -> list[str]:
    """Return the event ids of a pass and of an undecided verdict of ``plan``. They follow from the run and
    the evaluation alone."""
    values: dict[str, Any] = {
        "project": plan.project,
        "run_id": plan.run_id,
        "evaluation_id": plan.evaluation_id,
    }
    return [kind.model_construct(**values).event_id() for kind in (EvalPassed, EvalUndecided)]
