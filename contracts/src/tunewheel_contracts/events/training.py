"""Events of train, and the commands that it accepts."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Fraction, NonNegative, Sha256, Slug
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef, Start, Usage
from tunewheel_contracts.formats.sweep import (
    MOST_RECIPES,
    Changes,
    Lead,
    SweepMethod,
    SweepState,
    TriedRun,
)
from tunewheel_contracts.principal import OptionalPrincipal, OptionalSignature
from tunewheel_contracts.reading import if_unknown
from tunewheel_contracts.topic import DAY_MS, TopicSpec


class TrainAction(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class TrainControl(Event):
    """A command to one run, or to a sweep: ``run_id`` is its id then."""

    type: ClassVar[str] = "train.control"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("action", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    run_id: Slug
    action: TrainAction
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Distinguishes repeated commands."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class TrainPlanned(Event):
    """The estimated memory, hours and dollars of a run, published before it starts."""

    type: ClassVar[str] = "train.planned"
    subject_field: ClassVar[str] = "run_id"

    project: Slug
    run_id: Slug
    dataset_id: Slug
    base: BaseModelRef
    plan: TrainPlan
    cautions: tuple[str, ...] = ()
    """Warnings about settings in the project's spec that are allowed but seldom intended, such as long
    training without replay."""


class TrainStarted(Event):
    """A run began, or was resumed from a checkpoint by the same or another worker."""

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
    """The implementations that the run uses on this machine: ``layers``, ``attention`` for padded batches,
    ``compiled``."""
    device: str | None = None
    """The device that trains: the name of the GPU, or ``cpu``."""
    driver: str | None = None
    """The version of the NVIDIA driver; null on a processor."""
    cuda: str | None = None
    """The CUDA version that PyTorch was built for; null on a processor."""
    attempt: Annotated[int | None, Field(ge=1, exclude_if=lambda number: number is None)] = None
    """The number of the attempt at the dataset version: one more than the attempts that failed before. It
    orders starts and failures, because workers' clocks differ. Null: of an earlier release."""


class TrainProgressed(Event):
    """One optimizer step of a run, for progress displays. The event is repeated while the next step takes
    long."""

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
    """Main memory of the training process."""
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """Memory that the training process has allocated on its GPU; null without a GPU."""
    since_step_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """In a repeated event: seconds since the step ended. It shows that the run is alive, in a slow step."""
    validation_loss: FiniteFloat | None = None
    """The validation loss, if this step was validated."""
    figures: Annotated[dict[str, FiniteFloat], Field(exclude_if=operator.not_)] = {}
    """Of a step of ``train.reward``: the mean score of its answers by each criterion, their mean number of
    tokens (``answer_tokens``), the share of them whose prompt got one score for all answers, and which teach
    nothing (``same_score``), and how far the model has moved (``kl``, nats per token). If the step was
    validated, also the criteria on validation rows (``validation_…``)."""


class TrainCompleted(Event):
    """A run ended with a usable model in the object store. The model has no verdict yet."""

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
    """The estimate before the run. Together with ``usage`` it corrects later estimates."""
    usage: Usage | None = None
    start: Annotated[Start | None, Field(exclude_if=lambda start: start is None)] = None
    """How a run that continues from the champion began; null: the recipe does not ask for it."""


class TrainFailed(Event):
    """A run ended without a model. Running it again would fail in the same way."""

    type: ClassVar[str] = "train.failed"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("field", "reason")

    project: Slug
    run_id: Slug
    dataset_id: Slug
    field: str
    """The field to correct: a spec field such as ``base_model``; ``(device)`` or ``(disk)`` of the machine;
    or ``(run)``."""
    reason: str
    step: Annotated[int, Field(ge=0)] = 0
    completed: Fraction = 0.0
    record_ids: tuple[str, ...] = ()
    """Source records of the batch that caused the failure, if a batch did."""
    plan: TrainPlan | None = None
    """The estimate, if the memory did not suffice."""
    superseded_by: Slug | None = None
    """The newer dataset version that replaced this one while the run was still waiting."""
    attempt: Annotated[int | None, Field(ge=1, exclude_if=lambda number: number is None)] = None
    """The number of the attempt that failed, as in ``train.started``."""


class SweepRequested(Event):
    """A command: try one or more recipes on a dataset version. They are measured on validation rows, which
    are taken from its training rows; held-out rows are not read. Nothing becomes a model."""

    type: ClassVar[str] = "sweep.requested"
    subject_field: ClassVar[str] = "sweep_id"

    project: Slug
    sweep_id: Slug
    """Follows from the rest, so it identifies the event."""
    dataset_id: Slug
    recipes: Annotated[tuple[Changes, ...], Field(min_length=1, max_length=MOST_RECIPES)]
    """Of each recipe the fields that differ from the recipe of the version's spec."""
    method: Annotated[SweepMethod, if_unknown(None)] = SweepMethod.GRID
    """``grid``: train every recipe to its end. ``halving``: train all for a part of their steps, go on with
    the best third for three times as many, and so on (successive halving: arXiv:1502.07943)."""
    max_hours: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """The ceiling of all runs together: hours of training."""
    max_dollars: Annotated[FiniteFloat, Field(gt=0)] | None = None
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Distinguishes repeated commands."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class SweepProgressed(Event):
    """How far a sweep is. Every event holds the whole state, so the latest one suffices."""

    type: ClassVar[str] = "sweep.progressed"
    subject_field: ClassVar[str] = "sweep_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("state", "measured")

    project: Slug
    sweep_id: Slug
    dataset_id: Slug
    method: SweepMethod = SweepMethod.GRID
    state: SweepState
    measured: Annotated[int, Field(ge=0)]
    """How many measurements were made; halving measures a run more than once."""
    runs: tuple[TriedRun, ...]
    best: Slug | None = None
    """Of the runs that were trained furthest, the one with the highest label accuracy on the validation rows.
    Where that is equal, or the task has no labels: the one with the lowest validation loss."""
    lead: Lead | None = None
    """The lead of ``best`` over the second; null: the sweep has not ended, or has no second or no label
    accuracy."""
    validation_examples: Annotated[int | None, Field(ge=0)] = None
    labelled_examples: Annotated[int | None, Field(ge=0)] = None
    """How many of them have a label, and were answered; null: label accuracy was not measured."""
    hours: NonNegative = 0.0
    """Hours of training so far, of all runs."""
    dollars: NonNegative | None = None
    field: str = ""
    """The field to correct, if the sweep failed."""
    reason: str = ""
    max_hours: Annotated[FiniteFloat, Field(gt=0)]
    max_dollars: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @property
    def lateness(self) -> tuple[bool, int]:
        """The largest of a sweep's news counts, in whatever order they are read."""
        return self.state is not SweepState.TRAINING, self.measured


TRAIN_CONTROL = TopicSpec(TrainControl, ("console",), ("train",), 1)
TRAIN_PLANNED = TopicSpec(TrainPlanned, ("train",), ("curate",), 1, replayed_by=("curate",))
TRAIN_STARTED = TopicSpec(
    TrainStarted,
    ("train",),
    ("curate", "train", "registry", "monitor"),
    1,
    replayed_by=("curate", "registry", "monitor"),
)
TRAIN_PROGRESSED = TopicSpec(TrainProgressed, ("train",), (), 1, retention_ms=7 * DAY_MS)
TRAIN_COMPLETED = TopicSpec(
    TrainCompleted,
    ("train",),
    ("curate", "train", "eval", "registry", "monitor"),
    4,
    replayed_by=("curate", "train", "monitor"),
)
TRAIN_FAILED = TopicSpec(
    TrainFailed,
    ("train",),
    ("curate", "train", "registry", "monitor"),
    1,
    replayed_by=("curate", "train", "registry", "monitor"),
)
SWEEP_REQUESTED = TopicSpec(SweepRequested, ("console",), ("train",), 4)
SWEEP_PROGRESSED = TopicSpec(SweepProgressed, ("train",), ("curate",), 1, replayed_by=("curate",))
