"""The plan of an evaluation: contestants, criteria and method, fixed before anything is measured.

A plan is stored once. So an event that is delivered again, maybe after the champion changed, is judged
against the same contestants and gives the same scorecard. The plan of a run's first evaluation is
``runs/<run_id>/evaluation.json``; those of later evaluations are below ``runs/<run_id>/evaluations/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, first_complaint
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import (
    Champion,
    EvaluationPlan,
    Precision,
    first_plan_path,
    later_plan_path,
)
from tunewheel_contracts.formats.scorecard import SCORING
from tunewheel_contracts.formats.serving import Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id
from tunewheel_outputs.criteria import check_criteria
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_eval.measurement import METHOD

CELLS = 1
"""The same for the retrieval part of a scorecard."""


class RowsOf(NamedTuple):
    """The dataset version whose held-out rows are used."""

    dataset_id: str
    manifest: ArtifactRef


def champion_of(desired: ServingDesired | None, *, candidate_id: str) -> Champion | None:
    """Return the adapter in production; None: the base serves, nothing serves, or it is the candidate
    itself."""
    for route in _production(desired):
        if route.adapter and route.model_id != candidate_id:
            constraint = route.bundle.constraint if route.bundle else None
            return Champion(adapter=route.adapter, dataset_id=route.dataset_id, constraint=constraint)
    return None


def is_in_production(desired: ServingDesired | None, model_id: str) -> bool:
    return any(route.model_id == model_id for route in _production(desired))


def _production(desired: ServingDesired | None) -> Iterator[Route]:
    routes = desired.desired.routes if desired else ()
    return (route for route in routes if route.role is RouteRole.PRODUCTION)


def make_plan(
    run: TrainCompleted | EvaluationPlan,
    manifest: DatasetManifest,
    champion: Champion | None,
    *,
    regression: ArtifactRef,
    criteria: Sequence[Criterion] = (),
    precision: Precision = "float32",
    in_production: bool = False,
    index: IndexVersioned | None = None,
    completes: str | None = None,
    spent: float = 0.0,
    rows: RowsOf | None = None,
    reviewed: str | None = None,
) -> EvaluationPlan:
    """Return the plan by which ``run`` is judged.

    - ``run``: the event that completed the run, or the plan of its first evaluation.
    - ``criteria``: criteria other than those that were declared before training.
    - ``precision``: the precision of the computation. It is part of the judged bundle.
    - ``in_production``: the candidate serves, so the scorecard only informs.
    - ``index``: the project's newest index version; ignored if the project retrieves nothing.
    - ``completes``: an evaluation that is equal otherwise, whose scorecard lacks cells. Its verdict stays.
    - ``rows``: the version whose held-out rows are used, if not the run's own.
    - ``spent``: how much of a margin against the champion may be lost already; 0 without a champion.
    - ``reviewed``: see ``EvaluationPlan.reviewed``.

    Raises:
        InvalidEvent: ``run`` and its manifest do not belong together, the criteria are not those under which
        the run
            was trained, or ``criteria`` do not fit the project's task.
    """
    _belongs(run, manifest)
    other = _other_criteria(manifest.spec, criteria)
    criteria_sha256 = manifest.spec.sha256_of(criteria) if other else run.criteria_sha256
    cause: dict[str, Any] = {
        "run_id": run.run_id,
        "champion": champion.adapter.model_id if champion else None,
        "task": manifest.spec.task.model_dump(mode="json"),
        "evaluation": manifest.spec.evaluation.model_dump(mode="json"),
        "criteria_sha256": criteria_sha256,
        "regression_sha256": regression.sha256,
        "precision": precision,
        "method": [METHOD, SCORING],
    } | ({"in_production": True} if in_production else {})
    if manifest.spec.retrieval is None:
        index = None
    if index is not None:
        cause["index"] = [index.index_id, CELLS]
    if completes is not None:
        cause["completes"] = completes
    if champion and champion.constraint is not None:
        cause["champion_constraint"] = champion.constraint
    if spent := spent if champion else 0.0:
        cause["spent"] = spent
    if rows is not None:
        cause["rows"] = rows.dataset_id
    if reviewed is not None:
        cause["reviewed"] = reviewed
    evaluation_id = content_id("evaluation", cause)
    return EvaluationPlan(
        project=run.project,
        run_id=run.run_id,
        dataset_id=run.dataset_id,
        dataset=run.dataset,
        criteria_sha256=criteria_sha256,
        adapter=run.adapter,
        champion=champion,
        scorecard_id=content_id("scorecard", {"evaluation_id": evaluation_id}),
        review_required=manifest.spec.review.required,
        evaluation_id=evaluation_id,
        criteria=tuple(criteria) if other else (),
        regression=regression,
        precision=precision,
        in_production=in_production,
        index=index.manifest if index is not None else None,
        index_id=index.index_id if index is not None else None,
        completes=completes,
        spent=spent,
        rows=rows.manifest if rows is not None else None,
        rows_id=rows.dataset_id if rows is not None else None,
        reviewed=reviewed,
    )


async def read_manifest(store: ObjectStore, ref: ArtifactRef) -> DatasetManifest:
    """Download the dataset's manifest. Raises InvalidEvent if the reference does not lead to a manifest."""
    try:
        return DatasetManifest.model_validate_json(await store.get(ref))
    except (ArtifactMissing, CorruptArtifact) as error:
        raise InvalidEvent(field="dataset", reason=f"cannot be used: {error}") from error
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidEvent(field=f"dataset.{field}", reason=f"in the manifest: {reason}") from error


async def pin(store: ObjectStore, plan: EvaluationPlan) -> EvaluationPlan:
    """Store the plan of a run's first evaluation, or return the one that is stored already."""
    return await store.first_document(first_plan_path(plan.run_id), plan)


async def pin_later(store: ObjectStore, plan: EvaluationPlan) -> EvaluationPlan:
    """Store the plan of a later evaluation, or return the stored one of that name."""
    first = await read_plan(store, plan.run_id)
    if first is not None and first.evaluation_id == plan.evaluation_id:
        return first
    return await store.first_document(later_plan_path(plan.run_id, str(plan.evaluation_id)), plan)


async def read_plan(
    store: ObjectStore, run_id: str, evaluation_id: str | None = None
) -> EvaluationPlan | None:
    """Return the plan of an evaluation of a run, by default of the first; None: there is none."""
    first = await store.document(first_plan_path(run_id), EvaluationPlan)
    if evaluation_id is None or (first is not None and first.evaluation_id == evaluation_id):
        return first
    return await store.document(later_plan_path(run_id, evaluation_id), EvaluationPlan)


async def read_plans(store: ObjectStore, run_id: str) -> list[EvaluationPlan]:
    """Return the plans of all evaluations of a run: the first evaluation, then the others by name."""
    later = await store.list(f"runs/{run_id}/evaluations")
    found = [await store.document(path, EvaluationPlan) for path in (first_plan_path(run_id), *later)]
    return [plan for plan in found if plan is not None]


def _other_criteria(spec: ProjectSpec, criteria: Sequence[Criterion]) -> list[object]:
    """Return the criteria as JSON; empty if they are those of the spec."""
    asked: list[object] = [one.model_dump(mode="json") for one in criteria]
    if spec.sha256_of(criteria) == spec.criteria_sha256 or not asked:
        return []
    try:
        check_criteria(ProjectSpec.model_validate({**spec.model_dump(mode="json"), "criteria": asked}))
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidEvent(field=f"criteria ({field})", reason=reason) from error
    except InvalidSpec as error:
        raise InvalidEvent(field=f"criteria ({error.field})", reason=error.reason) from error
    return asked


def _belongs(run: TrainCompleted | EvaluationPlan, manifest: DatasetManifest) -> None:
    pairs = (
        ("criteria_sha256", run.criteria_sha256, manifest.criteria_sha256),
        ("dataset.spec.criteria", manifest.criteria_sha256, manifest.spec.criteria_sha256),
        ("dataset_id", run.dataset_id, manifest.dataset_id),
        ("project", run.project, manifest.project),
    )
    for field, said, found in pairs:
        if said != found:
            raise InvalidEvent(
                field=field,
                reason=f"is {said}, the dataset's manifest says {found}; criteria are fixed before training: "
                "build a new dataset version and train on it",
            )
