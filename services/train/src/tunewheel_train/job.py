"""What a training process is told: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.calibration import Correction


class Job(BaseModel):
    """A recipe with its paths on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    base_model: str
    base_revision: str | None = None
    """As the run was planned with; None: whatever is newest."""
    train_path: Path
    preferences_path: Path | None = None
    negatives_path: Path | None = None
    """Of answers to avoid with nothing to prefer to them, which one method can use."""
    start_from: Path | None = None
    """Directory of an adapter to go on from."""
    output_dir: Path
    work_dir: Path
    """Of checkpoints; the newest whole one found there is resumed from."""
    cache_dir: Path
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    sharding: Literal["none", "fsdp"] = "none"
    """Where several processes train together: whether each holds the whole model or a part of it."""
    packed: bool = True
    alive_seconds: float = 10.0
    """Between two signs of life."""
    stuck_seconds: float = 3_600.0
    """How long processes that train together wait for each other before they give up."""
    gradient_checkpointing: bool | None = None
    """None: as the plan says, which may also cut micro-batches."""
    devices: Path | None = None
    """A catalogue of cards and prices instead of the package's."""
    corrections: dict[str, Correction] = {}
    """By device and size (``calibration.key``), what earlier runs of this method say about estimates."""
    recipe: TrainSpec = TrainSpec()
