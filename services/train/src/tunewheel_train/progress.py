"""The messages of a training process to the service: one JSON object per line.

planned → started → (progressed | checkpointed | warned)* → completed | stopped | failed

A process that searches a base model sends searching* → located | failed. ``alive`` may come between any two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import BaseModelFacts, Usage


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=True)


class Located(_Message):
    kind: Literal["located"] = "located"
    name: str
    revision: str
    path: Path
    facts: BaseModelFacts | None = None


class Planned(_Message):
    """Sent before the model is loaded, once the examples are counted and the machine is known."""

    kind: Literal["planned"] = "planned"
    plan: TrainPlan


class Started(_Message):
    kind: Literal["started"] = "started"
    total_steps: int
    resumed_from_step: int
    dtype: str
    examples: int
    tokens_per_epoch: int
    kernels: dict[str, str] = {}
    device: str | None = None
    driver: str | None = None
    cuda: str | None = None


class Progressed(_Message):
    kind: Literal["progressed"] = "progressed"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens_per_second: float
    """Averaged since the process began to train; padding does not count."""
    eta_seconds: float
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    validation_loss: float | None = None
    figures: dict[str, float] = {}
    """What a step of ``train.reward`` tells: see ``TrainProgressed``."""


class Checkpointed(_Message):
    kind: Literal["checkpointed"] = "checkpointed"
    step: int
    path: str


class Alive(_Message):
    """Sent regularly between other messages: the process runs, although no step has ended."""

    kind: Literal["alive"] = "alive"


class Searching(_Message):
    """Sent while a base model is downloaded, converted or hashed. It replaces ``Alive`` if many bytes were
    read or written since the last one."""

    kind: Literal["searching"] = "searching"
    moved_bytes: int
    """Bytes read and written since the process began."""


class Answered(_Message):
    """Sent after each batch of validation rows that a recipe which is tried has answered."""

    kind: Literal["answered"] = "answered"
    batches: int


class Warned(_Message):
    kind: Literal["warned"] = "warned"
    reason: str


class Completed(_Message):
    kind: Literal["completed"] = "completed"
    steps: int
    tokens: int
    wall_seconds: float
    dtype: str
    metrics: dict[str, float]
    versions: dict[str, str]
    resumed_from_steps: tuple[int, ...] = ()
    usage: Usage | None = None
    stopped_early_at: int | None = None
    best_step: int | None = None
    spared_steps: int = 0
    label_hits: tuple[tuple[float, ...], ...] = ()
    """Of a recipe that is tried: 1 for each labelled validation row whose answer has the expert's label, else
    0, by group."""


class Stopped(_Message):
    kind: Literal["stopped"] = "stopped"
    step: int


class Failed(_Message):
    kind: Literal["failed"] = "failed"
    field: str
    reason: str
    step: int = 0
    total_steps: int = 0
    record_ids: tuple[str, ...] = ()
    out_of_memory: bool = False
    unreachable: bool = False
    """Whether the hub did not answer, so that a later attempt may succeed."""


Message = Annotated[
    Located
    | Searching
    | Planned
    | Started
    | Progressed
    | Checkpointed
    | Alive
    | Answered
    | Warned
    | Completed
    | Stopped
    | Failed,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def write(stream: IO[str], message: Message) -> None:
    """Send one message and flush it."""
    stream.write(message.model_dump_json() + "\n")
    stream.flush()


def parse(line: str | bytes) -> Message | None:
    """Parse one line; None: it is no message, but printed by a library."""
    try:
        return _ADAPTER.validate_python(json.loads(line))
    except ValueError:
        return None
