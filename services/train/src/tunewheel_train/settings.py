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
    """The Kubernetes Job (YAML) from which every run's Job is made; None: runs are processes of this
    machine."""
    job_poll_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two polls: of the service for a run's Job, and of its pods for each other's notes."""
    train_threads: int = Field(default=0, ge=0)
    """Threads of a run on a processor, divided among its processes; 0: an equal part, by ``train_slots``, of
    all that this process may use."""
    train_slots: int = Field(default=1, ge=1)
    """How many runs this worker trains at once. Each run gets GPUs of its own."""
    train_gpus: str = Field(default_factory=lambda: os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    """The GPUs of this worker, as numbers or UUIDs separated by commas. ``train_slots`` times
    ``train_processes`` are needed. If a named GPU does not come up, the run fails. Empty: the first GPUs of
    the machine, or its processor; -1: the processor."""
    train_processes: int = Field(default=0, ge=0)
    """How many processes train one run together, one per GPU. 0: one; on a processor two that train an
    adapter, if the memory suffices for two copies of the base."""
    train_nodes: int = Field(default=1, ge=1)
    """How many pods of a run's Job train it together, each with ``train_processes`` processes."""
    train_sharding: Literal["none", "fsdp"] = "none"
    """``none``: each process holds the whole model (DDP). ``fsdp``: each process holds a part of it."""
    train_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """``auto``: bfloat16 if the device computes fast in it, else float32."""
    train_attempts: int = Field(default=3, ge=1)
    """How often a training process may die without progress before its run fails."""
    hub_attempts: int = Field(default=20, ge=1)
    """How often a hub that does not answer is asked for a base model before the run fails. The waits between
    are set by ``retry_first_delay_seconds`` and ``retry_max_delay_seconds``."""
    mirror_bases: bool = True
    """Whether a base model from the hub is copied to the object store, once per commit. Train and eval on
    other machines then take it from there."""
    devices: Path | None = None
    """A file of GPUs and prices for plans, in the form of the planner's ``devices.json``."""
    upload_full_checkpoints: bool = True
    """Whether to upload checkpoints of ``full`` runs, which have 12 bytes per parameter. Without them such a
    run starts from the beginning on another machine."""
    progress_seconds: float = Field(default=1.0, ge=0)
    """The least time between two ``train.progressed`` of a run."""
    stop_seconds: float = Field(default=300.0, gt=0)
    """How long a run may take for its last checkpoint and its upload after it is told to stop. Then the
    training process is killed."""

    silent_seconds: float = Field(default=600.0, gt=0)
    """A training process without a sign of life for so long is killed and started again. A healthy process
    gives 60 signs in this time, also during a step."""
    stuck_seconds: float = Field(default=3_600.0, gt=0)
    """A training process that gives signs of life but makes no progress for so long is killed and started
    again. Set it longer than the slowest step."""
    mlflow_tracking_uri: SecretStr | None = None
    """An MLflow store to which runs are also reported, such as ``http://localhost:5000``."""

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
        """Raise InvalidSetting if a package that training or tracking on this machine needs is not
        installed."""
        if find_spec("torch") is None:
            raise InvalidSetting(
                "train_job_template",
                "runs are trained here, but torch is not installed; install tunewheel-train[worker] (the "
                "image train has it, the image train-launcher has not), or name the Job that trains them",
            )
        if self.mlflow_tracking_uri is not None and find_spec("mlflow") is None:
            raise InvalidSetting(
                "mlflow_tracking_uri",
                "is set, but MLflow is not installed; install tunewheel-train[mlflow], or remove it",
            )

    @model_validator(mode="after")
    def _gpus_suffice(self) -> Self:
        if self.asked_gpus and len(self.gpus) < self._gpus_needed:
            raise ValueError(
                f"TUNEWHEEL_TRAIN_GPUS (or CUDA_VISIBLE_DEVICES) names {len(self.gpus)} GPUs, but "
                f"{self.train_slots} slots of {max(1, self.train_processes)} processes need "
                f"{self._gpus_needed}; "
                "name more, or lower TUNEWHEEL_TRAIN_SLOTS or TUNEWHEEL_TRAIN_PROCESSES"
            )
        return self

    @property
    def _gpus_needed(self) -> int:
        return self.train_slots * max(1, self.train_processes)

    @property
    def threads_of_a_run(self) -> int:
        return self.train_threads or max(1, len(os.sched_getaffinity(0)) // self.train_slots)

    @property
    def processes_asked(self) -> int:
        """How many processes of this machine train one run; 0: the training process decides."""
        free = self.train_nodes == 1 and self.train_sharding == "none"
        return self.train_processes or (0 if free else 1)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that are given to the slots, in order. Harmless on a machine without GPUs."""
        named = tuple(part.strip() for part in self.train_gpus.split(",") if part.strip())
        return named or tuple(str(number) for number in range(self._gpus_needed))

    @property
    def asked_gpus(self) -> str:
        """The GPUs that were named; empty: none was."""
        return "" if self.train_gpus.strip() == "-1" else self.train_gpus.strip(" ,")

    @property
    def grace_seconds(self) -> float:
        """The grace period of every service, plus the time for a last checkpoint and its upload."""
        return super().grace_seconds + self.stop_seconds

    @property
    def runs_dir(self) -> Path:
        return self.work_for("train") / "runs"
