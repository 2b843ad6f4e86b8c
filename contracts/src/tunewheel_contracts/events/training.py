"""What train produces, and the commands it takes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Fraction, Sha256, Slug
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef, Usage
from tunewheel_contracts.principal import OptionalPrincipal


class TrainAction(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class TrainControl(Event):
    """A command to one run."""

    type: ClassVar[str] = "train.control"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("action", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    run_id: Slug
    action: TrainAction
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Tells repeated commands apart."""
    principal: OptionalPrincipal = None


class TrainPlanned(Event):
    """What a run is about to take in memory, hours and dollars, said before it starts."""

    type: ClassVar[str] = "train.planned"
    subject_field: ClassVar[str] = "run_id"

    project: Slug
    run_id: Slug
    dataset_id: Slug
    base: BaseModelRef
    plan: TrainPlan
    cautions: tuple[str, ...] = ()
    """What the project's spec allows and seldom means, such as to train hard without replay."""


class TrainStarted(Event):
    """A run began, or was resumed from a checkpoint by this or another worker."""

    type: ClassVar[str] = "train.started"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("resumed_from_step",)

    project: Slug
    run_id: Slug
    dataset_id: Slug
    base: BaseModelRef
    method: TrainMethod
    total_steps: Annotated[int, Field(ge=0)]
    resumed_from_step: Annotated[int, Field(ge=0)] = 0
    kernels: dict[str, str] = {}
    """What computes the run on this machine: ``layers``, ``attention`` of padded batches, ``compiled``."""


class TrainProgressed(Event):
    """One optimizer step of a run, for those who watch; told again while the next one takes long."""

    type: ClassVar[str] = "train.progressed"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("step",)

    project: Slug
    run_id: Slug
    step: Annotated[int, Field(ge=0)]
    total_steps: Annotated[int, Field(ge=0)]
    epoch: Annotated[FiniteFloat, Field(ge=0)]
    loss: FiniteFloat
    learning_rate: FiniteFloat
    grad_norm: FiniteFloat | None = None
    tokens_per_second: Annotated[FiniteFloat, Field(ge=0)]
    eta_seconds: Annotated[FiniteFloat, Field(ge=0)]
    memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """Of the machine, that the training process holds."""
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """That it has allocated on its GPU; null without one."""
    since_step_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """Where the step is told again: how long ago it ended. The run lives, and is in a slow step."""
    validation_loss: FiniteFloat | None = None
    """Where this step was validated."""


class TrainCompleted(Event):
    """A run ended with a usable model in the object store; its verdict is still open."""

    type: ClassVar[str] = "train.completed"
    subject_field: ClassVar[str] = "run_id"

    project: Slug
    run_id: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    manifest: ArtifactRef
    """The run manifest."""
    criteria_sha256: Sha256
    adapter: AdapterRef
    final_loss: FiniteFloat
    tokens: Annotated[int, Field(ge=0)]
    wall_seconds: Annotated[FiniteFloat, Field(ge=0)]
    plan: TrainPlan | None = None
    """What was estimated; with ``usage`` it corrects later estimates."""
    usage: Usage | None = None


class TrainFailed(Event):
    """A run ended without a model, and running it again would end the same."""

    type: ClassVar[str] = "train.failed"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("field", "reason")

    project: Slug
    run_id: Slug
    dataset_id: Slug
    field: str
    """What to mend: a spec field such as ``base_model``, or ``(run)``."""
    reason: str
    step: Annotated[int, Field(ge=0)] = 0
    completed: Fraction = 0.0
    record_ids: tuple[str, ...] = ()
    """Source records of the batch that did it, where a batch did."""
    plan: TrainPlan | None = None
    """What was estimated, where memory did not suffice."""
    superseded_by: Slug | None = None
    """The newer dataset version because of which the run, which still waited, was dropped."""
