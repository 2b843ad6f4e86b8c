"""Training runs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import Start, Usage
from tunewheel_contracts.formats.sweep import Lead, TriedRun


class RunSummary(Frozen):
    run_id: str
    project: str
    dataset_id: str | None = None
    state: str
    """``waiting``, ``training``, ``paused``, ``completed``, ``failed``, ``cancelled`` or ``superseded``."""
    stage: str | None = None
    """The stage of the run's turn, as in ``TurnSummary``; None: no turn has this run."""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    """The last loss."""
    verdict: str | None = None
    """``passed``, ``failed``, ``undecided`` or ``review`` (people decide); None: not evaluated."""
    why: str | None = None
    """Why the run failed, or the reasons of its verdict."""
    model_id: str | None = None
    base: str | None = None
    method: str | None = None
    device: str | None = None
    created_at: Timestamp
    """The time of the first event about the run. Lists are in the order of this time."""
    started_at: Timestamp | None = None
    """The latest start."""
    ended_at: Timestamp | None = None
    news_at: Timestamp
    """The time of the last event about the run."""
    seconds: float | None = None
    """How long the training took."""


Measured = Annotated[float | None, Field(exclude_if=lambda figure: figure is None)]


class LossPoint(Frozen):
    step: int
    loss: float
    learning_rate: Measured = None
    """None, as what follows: the point is of a validation."""
    tokens_per_second: Measured = None
    memory_bytes: Measured = None
    """Memory of the training process: on its GPU, or without one main memory."""


class RunProgress(Frozen):
    """The figures of the latest step."""

    epoch: float
    learning_rate: float
    tokens_per_second: float
    eta_seconds: float
    grad_norm: float | None = None
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    since_step_seconds: float | None = None
    validation_loss: float | None = None


class RunFailure(Frozen):
    field: str
    """The field to correct."""
    reason: str
    superseded_by: str | None = None
    record_ids: tuple[str, ...] = ()
    """The source records of the batch that caused the failure."""


class RunControl(Frozen):
    """A person's command to the run."""

    command_id: str
    action: str
    at: Timestamp
    by: str | None = None


class RunDetail(RunSummary):
    progress: RunProgress | None = None
    losses: tuple[LossPoint, ...] = ()
    """The losses in order. Of long runs every n-th."""
    validation: tuple[LossPoint, ...] = ()
    """The validation losses in order."""
    failure: RunFailure | None = None
    controls: tuple[RunControl, ...] = ()
    attempt: int | None = None
    kernels: dict[str, str] = {}
    driver: str | None = None
    cuda: str | None = None
    plan: TrainPlan | None = None
    """The estimate before the run."""
    cautions: tuple[str, ...] = ()
    usage: Usage | None = None
    final_loss: float | None = None
    tokens: int | None = None
    start: Start | None = None
    """How a run that continues from the champion began."""
    evaluations: tuple[str, ...] = ()
    """The ids of its evaluations, newest first."""


class SweepDetail(Frozen):
    """Recipes that are tried on a dataset version, each measured on validation rows."""

    sweep_id: str
    project: str
    dataset_id: str
    state: str
    """``waiting``, ``training``, ``completed``, ``failed`` or ``cancelled``."""
    method: str
    runs: tuple[TriedRun, ...] = ()
    """In the order of the request."""
    best: str | None = None
    """Of the runs that were trained furthest, the one with the highest label accuracy on the validation rows.
    Where that is equal, or the task has no labels: the one with the lowest validation loss."""
    lead: Lead | None = None
    """Its lead over the second; None: the sweep has not ended, or has no second or no label accuracy."""
    validation_examples: int | None = None
    labelled_examples: int | None = None
    """How many validation rows have a label, and were answered."""
    hours: float = 0.0
    """Hours of training so far, of all runs."""
    dollars: float | None = None
    max_hours: float
    max_dollars: float | None = None
    field: str = ""
    """The field to correct, if it failed."""
    reason: str = ""
    created_at: Timestamp
    """The time of the first event about it. Lists are in the order of this time."""
    news_at: Timestamp
    by: str | None = None
    """Who asked for it."""


class RunComparison(Frozen):
    """Several runs side by side."""

    runs: tuple[RunDetail, ...]
    recipe: dict[str, tuple[Any, ...]] = {}
    """By dotted path the fields of the recipes that differ, with a value for each run. None: the field is
    null, or the recipe is gone from the store."""
    figures: dict[str, tuple[float | None, ...]] = {}
    """By metric the figures of the candidates in the runs' last verdicts."""
    withheld: bool = False
    """Whether the figures are withheld, because a review of the project's answers is open."""
