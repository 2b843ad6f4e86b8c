"""Settings of the train service, by ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_planner.devices import read_catalogue
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """The shared settings and those of training."""

    train_job_template: Path | None = None
    """A Job of Kubernetes (YAML) that every run's Job is made from; None: runs are trained by processes of
    this machine."""
    job_poll_seconds: float = Field(default=5.0, gt=0)
    """Between two looks at a run's Job, and of its pods at what the others say."""
    train_threads: int = Field(default=0, ge=0)
    """Threads of the training process; 0: as many as this process may use."""
    train_slots: int = Field(default=1, ge=1)
    """Runs that this worker trains at once; on GPUs each has its own."""
    train_gpus: str = Field(default_factory=lambda: os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    """GPUs of this worker, numbers or UUIDs with commas between: slots times processes of them. Where nothing
    is said, the first ones of the machine."""
    train_processes: int = Field(default=1, ge=1)
    """Processes that train one run together: as many as it has GPUs."""
    train_nodes: int = Field(default=1, ge=1)
    """Pods of a run's Job that train it together, ``train_processes`` each."""
    train_sharding: Literal["none", "fsdp"] = "none"
    """``none``: each of them holds the whole model (DDP). ``fsdp``: each holds a part of it."""
    train_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """``auto`` asks the processor."""
    train_attempts: int = Field(default=3, ge=1)
    """How often a training process that dies is started again without having come further."""
    hub_attempts: int = Field(default=20, ge=1)
    """How often a base model is looked for on a hub that does not answer before its run fails; the waits
    between are those of ``retry_first_delay_seconds`` and ``retry_max_delay_seconds``."""
    devices: Path | None = None
    """Cards and prices that plans reckon with, like the planner's ``devices.json``."""
    upload_full_checkpoints: bool = True
    """Also upload checkpoints of ``full`` runs, which hold 12 bytes per parameter; without them such a run
    begins anew on another machine."""
    progress_seconds: float = Field(default=1.0, ge=0)
    """At most one train.progressed per run in this time."""
    stop_seconds: float = Field(default=300.0, gt=0)
    """How long a run that is stopped may take over its last checkpoint and the checkpoint's upload; then the
    training process is killed."""

    silent_seconds: float = Field(default=600.0, gt=0)
    """A training process that gives no sign of life for so long is killed and started again. It gives sixty
    in this time, also in the middle of a step."""
    stuck_seconds: float = Field(default=3_600.0, gt=0)
    """A training process that lives, but comes no further for so long, is killed and started again: longer
    than the slowest step."""
    mlflow_tracking_uri: SecretStr | None = None
    """MLflow store that runs are told to as well, such as ``http://localhost:5000``."""

    @field_validator("devices")
    @classmethod
    def _can_be_read(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_catalogue(path)
            except InvalidSpec as error:
                raise ValueError(str(error)) from error
        return path

    def require_what_trains(self) -> None:
        """Raises InvalidSetting: what trains a run on this machine, or tracks it, is not installed."""
        if find_spec("torch") is None:
            raise InvalidSetting(
                "train_job_template",
                "runs are trained here, and torch is not installed; install tunewheel-train[worker], as the "
                "image train has it and the image train-launcher has not, or name the Job that trains them",
            )
        if self.mlflow_tracking_uri is not None and find_spec("mlflow") is None:
            raise InvalidSetting(
                "mlflow_tracking_uri",
                "is set, but MLflow is not installed; install tunewheel-train[mlflow], or remove it",
            )

    @model_validator(mode="after")
    def _gpus_suffice(self) -> Self:
        if self.train_gpus and self.train_gpus != "-1" and len(self.gpus) < self._gpus_needed:
            raise ValueError(
                f"TUNEWHEEL_TRAIN_GPUS (or CUDA_VISIBLE_DEVICES) names {len(self.gpus)} GPUs, but "
                f"{self.train_slots} slots of {self.train_processes} processes need {self._gpus_needed}; "
                "name more, or lower TUNEWHEEL_TRAIN_SLOTS or TUNEWHEEL_TRAIN_PROCESSES"
            )
        return self

    @property
    def _gpus_needed(self) -> int:
        return self.train_slots * self.train_processes

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that the slots are given, in order. A machine without any does not mind."""
        named = tuple(part.strip() for part in self.train_gpus.split(",") if part.strip())
        return named or tuple(str(number) for number in range(self._gpus_needed))

    @property
    def grace_seconds(self) -> float:
        """As every service's, after a last checkpoint and its upload."""
        return super().grace_seconds + self.stop_seconds

    @property
    def runs_dir(self) -> Path:
        return self.work_for("train") / "runs"
