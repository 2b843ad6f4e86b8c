"""The job of a training process: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tunewheel_contracts.formats.bundle import ChatTemplateKwargs
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.task_spec import TaskSpec
from tunewheel_planner.calibration import Correction


class Tried(BaseModel):
    """What a run of a sweep adds to a job: it is measured on validation rows, and nothing is saved of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep_id: str
    part: float = 1.0
    """The part of its steps after which it is measured."""
    left: float = 1.0
    """How many whole runs the sweep still has to train, this one included: the estimate is asked for all."""
    spent_hours: float = 0.0
    """Hours that this run was trained before, up to a smaller part."""
    task: TaskSpec | None = None
    """By its labels the answers to validation rows are scored; None: the task has no labels."""


class Rewarded(BaseModel):
    """By what ``train.reward`` scores answers. It is part of the run's id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskSpec
    metrics: tuple[str, ...]
    """Those that the project's criteria name."""


class Job(BaseModel):
    """A recipe with its paths on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    base_model: str
    base_revision: str | None = None
    """The revision that the run was planned with; None: the newest one."""
    train_path: Path
    preferences_path: Path | None = None
    negatives_path: Path | None = None
    """Answers that were only rated down. Only the method ``kto`` can use them."""
    start_from: Path | None = None
    """Directory of the adapter to continue from."""
    learnt_path: Path | None = None
    """The rows that it learned from, if it is the champion: only a sample of them is trained on again."""
    output_dir: Path
    work_dir: Path
    """Directory of checkpoints. The run resumes from the newest whole one."""
    cache_dir: Path
    gpus: str = ""
    """The GPUs that were asked for. If they do not come up, the run fails. Empty: a GPU is used if there is
    one."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    processes: int = 1
    """How many processes train together; 0: the first process decides, and forks the others."""
    base_parameters: int | None = None
    """Number of parameters of the base model; None: unknown."""
    sharding: Literal["none", "fsdp"] = "none"
    """If several processes train together: ``none``, each holds the whole model; ``fsdp``, each holds a
    part."""
    packed: bool = True
    alive_seconds: float = 10.0
    """Seconds between two signs of life."""
    stuck_seconds: float = 3_600.0
    """Seconds that processes which train together wait for each other before they give up."""
    gradient_checkpointing: bool | None = None
    """None: the plan decides. It may also choose smaller micro-batches."""
    devices: Path | None = None
    """A catalogue of GPUs and prices that replaces the package's."""
    corrections: dict[str, Correction] = {}
    """By device and size (``calibration.key``): corrections of estimates, from earlier runs of this
    method."""
    rewarded: Rewarded | None = None
    """None: the recipe has no ``reward``."""
    tried: Tried | None = None
    """None: a run of a turn."""
    limit_hours: float | None = None
    """After so many hours of training the run is stopped; the plan fills it in from the recipe's ceilings."""
    recipe: TrainSpec = TrainSpec()
    chat_template_kwargs: ChatTemplateKwargs = {}
