"""What one stage of a run trains on, in which order, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.validation import Patience
from tunewheel_train.trainers.divergence import Divergence

Stage = Literal["examples", "preferences"]


@dataclass
class Course:
    """``steps`` are indices into ``items``, a list per optimizer step; the counters travel in checkpoints."""

    items: Sequence[Any]
    steps: Sequence[Sequence[int]]
    micro_batch_size: int
    stage: Stage = "examples"
    method: str = "lora"
    first_step: int = 0
    """Optimizer steps of the stages before."""
    total_steps: int = 0
    """Of all stages; 0: of this one."""
    epochs: float = 1.0
    """That ``steps`` amount to."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the stages before."""
    keep: int = 2
    """Newest checkpoints that are kept; the best by validation is kept too."""
    validation: Sequence[Encoded] = ()
    validate_every: int = 0
    """Steps of the stage between validations, at each of which a checkpoint is written; 0: there are none."""
    patience: Patience = field(default_factory=lambda: Patience(0))
    divergence: Divergence = field(default_factory=Divergence)
    tokens_seen: int = 0
    resumed_from: tuple[int, ...] = ()
    step_seconds: float = 0.0
    """Of steps in this process alone: no loading, validating or saving."""
    step_tokens: int = 0
    last_step: int = 0
    stopped_early_at: int | None = None
    _clock: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.total_steps = self.total_steps or self.first_step + len(self.steps)

    def count_seconds_from(self, before: float) -> None:
        """Start the clock at ``before``, the seconds that earlier attempts at this run trained."""
        self._clock = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Seconds of training, those of earlier attempts up to their checkpoint included."""
        return time.monotonic() - self._clock

    def counted(self, tokens: int) -> None:
        self.tokens_seen += tokens
        self.step_tokens += tokens

    def ended(self, stage_step: int) -> None:
        """Note after which of the stage's steps training ended."""
        self.last_step = self.first_step + stage_step
        if stage_step < len(self.steps):
            self.stopped_early_at = self.last_step

    def validates_at(self, stage_step: int) -> bool:
        """Whether the stage's step ``stage_step`` is validated; the last one is."""
        at_all = bool(self.validation) and self.validate_every > 0
        return at_all and (stage_step % self.validate_every == 0 or stage_step == len(self.steps))

    def record_ids(self, step: int) -> tuple[str, ...]:
        """Source records of the examples of the stage's optimizer step ``step``, which counts from 1."""
        if not 0 < step <= len(self.steps):
            return ()
        ids = (record for index in self.steps[step - 1] for record in self.items[index].record_ids)
        return tuple(sorted(set(ids)))
