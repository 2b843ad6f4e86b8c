"""A run and everything that follows from its dataset version: its ids, its events and its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.fields import ArtifactRef, shared
from tunewheel_contracts.formats.bundle import ChatTemplateKwargs
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import OPERATIONAL, TrainSpec
from tunewheel_contracts.formats.run import (
    AdapterRef,
    Adjustment,
    BaseModelFacts,
    BaseModelRef,
    RunManifest,
    Start,
)
from tunewheel_contracts.formats.scorecard import SCORING
from tunewheel_contracts.identity import content_id, content_sha256

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Rewarded, Tried
from tunewheel_train.progress import Completed

UNRESOLVED = "unresolved"
MAX_RECORD_IDS = 200
"""The most refused examples that an event names."""


def manifest_path(run_id: str) -> str:
    """Return the path of a run's manifest in the object store. A run with a manifest is complete."""
    return f"runs/{run_id}/manifest.json"


def checkpoints_prefix(run_id: str) -> str:
    """Return the path prefix of a run's checkpoints in the object store."""
    return f"runs/{run_id}/checkpoints"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. The same dataset, base revision and recipe give the same ids."""

    run_id: str
    superseded_id: str
    """The id by which it is told that the run is superseded. The base is not in it: the same version is told
    by the same id whether its base was looked for or not."""
    model_id: str
    project: str
    dataset_id: str
    dataset: ArtifactRef
    criteria_sha256: str
    train: ArtifactRef
    base: BaseModelRef
    recipe: TrainSpec
    chat_template_kwargs: ChatTemplateKwargs = field(default_factory=dict)
    preferences: ArtifactRef | None = None
    negatives: ArtifactRef | None = None
    base_facts: BaseModelFacts | None = None
    start: Start | None = None
    cautions: tuple[str, ...] = ()
    attempt: int = 1
    """The number of this attempt at the dataset version."""
    rewarded: Rewarded | None = None
    tried: Tried | None = None
    """For a run of a sweep, what is asked of it; None: a run of a turn."""

    @property
    def commanded_as(self) -> str:
        """The id by which commands name it. A sweep is commanded as a whole."""
        return self.tried.sweep_id if self.tried else self.run_id

    @property
    def manifest_path(self) -> str:
        return manifest_path(self.run_id)

    @property
    def checkpoints_prefix(self) -> str:
        return checkpoints_prefix(self.run_id)

    @property
    def adapter_path(self) -> str:
        return f"adapters/{self.model_id}"


def read_dataset(event: DatasetVersioned, content: bytes) -> DatasetManifest:
    """Parse the manifest that ``event`` points to, and compare both.

    Raises InvalidEvent: it is no manifest, it belongs to another dataset, or its criteria do not match their
    hash.
    """
    try:
        manifest = DatasetManifest.model_validate_json(content)
    except ValidationError as error:
        raise InvalidEvent.from_validation(error) from error
    if (manifest.dataset_id, manifest.project) != (event.dataset_id, event.project):
        raise InvalidEvent(
            field="manifest",
            reason=f"belongs to {manifest.dataset_id} of {manifest.project}; send the manifest of "
            f"{event.dataset_id}",
        )
    if not manifest.spec.criteria_sha256 == manifest.criteria_sha256 == event.criteria_sha256:
        raise InvalidEvent(
            field="criteria_sha256",
            reason="is not the hash of the spec's criteria; build a new version to change them",
        )
    return manifest


def plan_run(
    manifest: DatasetManifest,
    dataset: ArtifactRef,
    base: BaseModelRef,
    base_facts: BaseModelFacts | None = None,
    start: Start | None = None,
) -> Run:
    """Name the run of ``manifest``'s recipe on ``base``; ``dataset`` refers to the manifest. ``start``: the
    decision for a recipe that continues from the champion."""
    recipe = manifest.spec.train
    identity: dict[str, object] = {
        "dataset_id": manifest.dataset_id,
        "base_revision": base.revision,
        "recipe": recipe.model_dump(mode="json", exclude=set(OPERATIONAL)),
    }
    rewarded = None
    if recipe.reward is not None:
        asked = tuple(dict.fromkeys(one.metric for one in manifest.spec.criteria))
        rewarded = Rewarded(task=manifest.spec.task, metrics=asked)
        identity["reward"] = content_sha256([rewarded.model_dump(mode="json"), SCORING])
    superseded_id = content_id("run", identity | {"base_revision": UNRESOLVED})
    if start is not None:
        identity["start"] = start.model_id
    return Run(
        run_id=content_id("run", identity),
        superseded_id=superseded_id,
        # 63 characters are a Slug's limit.
        model_id=f"{manifest.project[:50]}-{content_sha256(identity)[:12]}",
        project=manifest.project,
        dataset_id=manifest.dataset_id,
        dataset=dataset,
        criteria_sha256=manifest.criteria_sha256,
        train=manifest.train,
        base=base,
        recipe=recipe,
        chat_template_kwargs=manifest.spec.task.chat_template_kwargs,
        preferences=manifest.preferences,
        negatives=manifest.negatives,
        base_facts=base_facts,
        start=start,
        cautions=manifest.spec.cautions,
        rewarded=rewarded,
    )


def unresolved_base(name: str) -> BaseModelRef:
    """Return a placeholder for a base model that was not found, so that the failed run has an id."""
    return BaseModelRef(name=name, revision=UNRESOLVED)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run: the last message of its process, the recipe as it was used, and the plan."""

    outcome: Completed
    recipe: TrainSpec
    plan: TrainPlan | None = None
    total_steps: int = 0
    adjustments: tuple[Adjustment, ...] = ()


def make_adapter(run: Run, recipe: TrainSpec, path: str, files: tuple[ArtifactRef, ...]) -> AdapterRef:
    """Return the reference to the uploaded adapter of ``run``, which was trained with ``recipe``."""
    return AdapterRef(
        model_id=run.model_id,
        path=path,
        files=files,
        base=run.base,
        base_facts=run.base_facts,
        method=recipe.method,
        quantization=recipe.method.traits.quantization,
    )


def make_manifest(run: Run, adapter: AdapterRef, result: Result) -> RunManifest:
    """Return the manifest: everything needed to repeat ``run``, and its result."""
    outcome, start = result.outcome, run.start
    if start is not None:
        start = start.model_copy(update={"spared_steps": outcome.spared_steps})
    own: dict[str, Any] = {"start": start, "adapter": adapter, "seed": run.recipe.seed}
    return RunManifest(**shared(RunManifest, result, run, outcome) | own)


def completed(manifest: RunManifest, ref: ArtifactRef) -> TrainCompleted:
    """Return the event of a finished run. It follows from the manifest, so it is always the same."""
    loss = manifest.metrics["final_loss"]
    return TrainCompleted(**shared(TrainCompleted, manifest), manifest=ref, final_loss=loss)


def failed(run: Run, error: RunFailed, plan: TrainPlan | None = None) -> TrainFailed:
    """Return the event of a run that cannot succeed without a change. ``plan`` is given if memory was too
    small."""
    run_id = run.superseded_id if error.superseded_by else run.run_id
    return TrainFailed(
        **shared(TrainFailed, run) | {"run_id": run_id},
        field=error.field,
        reason=error.reason,
        step=error.step,
        completed=error.step / error.total_steps if error.total_steps else 0.0,
        record_ids=error.record_ids[:MAX_RECORD_IDS],
        plan=plan,
        superseded_by=error.superseded_by,
    )
