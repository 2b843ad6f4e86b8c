"""What one run will be judged against, fixed before anything is measured.

The plan is pinned in the store at ``runs/<run_id>/evaluation.json``, created once. So an event that is
delivered again, perhaps after another champion took over, is judged against the same contestants and gives
the same scorecard.
"""

from __future__ import annotations

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, first_complaint
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256, Slug
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.identity import content_id
from tunewheel_runtime.store import ArtifactConflict, ArtifactMissing, CorruptArtifact, ObjectStore


class Champion(Frozen):
    """The model in production when the run was planned."""

    adapter: AdapterRef
    dataset_id: Slug | None = None


class EvaluationPlan(Frozen):
    """``runs/<run_id>/evaluation.json``."""

    project: Slug
    run_id: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    criteria_sha256: Sha256
    adapter: AdapterRef
    champion: Champion | None
    scorecard_id: Slug
    review_required: bool

    @property
    def scorecard_path(self) -> str:
        return f"scorecards/{self.scorecard_id}.json"


def champion_of(desired: ServingDesired | None, *, candidate_id: str) -> Champion | None:
    """Return the adapter in production; None for the bare base, for nothing, and for the candidate."""
    routes = desired.desired.routes if desired else ()
    for route in routes:
        if route.role is RouteRole.PRODUCTION and route.adapter and route.model_id != candidate_id:
            return Champion(adapter=route.adapter, dataset_id=route.dataset_id)
    return None


def make_plan(event: TrainCompleted, manifest: DatasetManifest, champion: Champion | None) -> EvaluationPlan:
    """Return what ``event``'s run is to be judged against.

    Raises:
        InvalidEvent: the event and the manifest it points to do not belong together, or the criteria are
            not those that the run was trained under.
    """
    _belongs(event, manifest)
    cause = {
        "run_id": event.run_id,
        "champion": champion.adapter.model_id if champion else None,
        "criteria_sha256": event.criteria_sha256,
    }
    return EvaluationPlan(
        project=event.project,
        run_id=event.run_id,
        dataset_id=event.dataset_id,
        dataset=event.dataset,
        criteria_sha256=event.criteria_sha256,
        adapter=event.adapter,
        champion=champion,
        scorecard_id=content_id("scorecard", cause),
        review_required=manifest.spec.review.required,
    )


async def read_manifest(store: ObjectStore, ref: ArtifactRef) -> DatasetManifest:
    """Fetch the dataset's manifest. Raises InvalidEvent where the reference leads to no manifest."""
    try:
        return DatasetManifest.model_validate_json(await store.get(ref))
    except (ArtifactMissing, CorruptArtifact) as error:
        raise InvalidEvent(field="dataset", reason=f"cannot be used: {error}") from error
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidEvent(field=f"dataset.{field}", reason=f"in the manifest: {reason}") from error


async def pin(store: ObjectStore, plan: EvaluationPlan) -> EvaluationPlan:
    """Create the plan in the store, or return the one that is there already."""
    path = plan_path(plan.run_id)
    if (pinned := await read_plan(store, plan.run_id)) is not None:
        return pinned
    try:
        await store.put(path, plan.model_dump_json(indent=1).encode())
    except ArtifactConflict:  # another worker was quicker: its plan holds
        return await read_plan(store, plan.run_id) or plan
    return plan


async def read_plan(store: ObjectStore, run_id: str) -> EvaluationPlan | None:
    """Return the pinned plan of a run, if it has one."""
    data = await store.read(plan_path(run_id))
    return EvaluationPlan.model_validate_json(data) if data is not None else None


def plan_path(run_id: str) -> str:
    return f"runs/{run_id}/evaluation.json"


def _belongs(event: TrainCompleted, manifest: DatasetManifest) -> None:
    pairs = (
        ("criteria_sha256", event.criteria_sha256, manifest.criteria_sha256),
        ("dataset.spec.criteria", manifest.criteria_sha256, manifest.spec.criteria_sha256),
        ("dataset_id", event.dataset_id, manifest.dataset_id),
        ("project", event.project, manifest.project),
    )
    for field, said, found in pairs:
        if said != found:
            raise InvalidEvent(
                field=field,
                reason=f"is {said}, the dataset's manifest says {found}; criteria are fixed before training: "
                "build a new dataset version and train on it",
            )
