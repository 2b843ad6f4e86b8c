"""What the training process is told: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tunewheel_contracts.formats.spec import TrainSpec


class Job(BaseModel):
    """Arguments of ``recipe.train`` that are data; ``recipe`` holds the spec's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    base_model: str
    train_path: Path
    output_dir: Path
    work_dir: Path
    cache_dir: Path
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    packed: bool = True
    recipe: TrainSpec = TrainSpec()
