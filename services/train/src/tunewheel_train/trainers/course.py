"""The course of one stage of a run: its data, the order of its steps, and its progress."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from tunewheel_train.data.validation import Patience

FIRST, LAST = 5, 10
"""The medians of the first ``FIRST`` and of the last ``LAST`` steps are compared. Medians ignore a few hard
batches."""
TIMES, MORE = 2.0, 1.0
"""The loss diverged if the last median is more than ``TIMES`` times the first, and larger by more than
``MORE``."""


class Divergence:
    """Call ``saw`` with every step's loss; it returns a complaint once the loss diverged. The state is kept
    in checkpoints. Otherwise a resumed process would take high losses for the beginning."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST)

    def saw(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return "made the loss diverge to a value that is not finite"
        if len(self._first) < FIRST:
            self._first.append(loss)
            return None
        self._last.append(loss)
        if len(self._last) < LAST:
            return None
        began, now = median(self._first), median(self._last)
        if now > TIMES * began and now > began + MORE:
            return f"made the loss diverge from {began:.2f} to {now:.2f}"
        return None

    def state(self) -> dict[str, list[float]]:
        return {"first": list(self._first), "last": list(self._last)}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Continue from ``state()`` of an earlier process. A checkpoint without this state starts anew."""
        self._first = list(state.get("first", ()))
        self._last = deque(state.get("last", ()), maxlen=LAST)


Stage = Literal["examples", "preferences", "reward"]
RATES: Mapping[Stage, str] = {
    "examples": "train.learning_rate",
    "preferences": "train.preference.learning_rate",
    "reward": "train.reward.learning_rate",
}
"""The field of the spec with the learning rate of each stage."""


@dataclass
class Course:
    """``steps`` has for each optimizer step a list of indices into ``items``. Checkpoints hold the
    counters."""

    items: Sequence[Any]
    steps: Sequence[Sequence[int]]
    micro_batch_size: int
    parts: int = 1
    """A step is computed in at least so many parts, whose gradients are added in one order."""
    stage: Stage = "examples"
    method: str = "lora"
    first_step: int = 0
    """The number of optimizer steps in earlier stages."""
    total_steps: int = 0
    """The number of optimizer steps in all stages; 0: this is the only stage."""
    epochs: float = 1.0
    """The number of epochs in ``steps``."""
    label_hits: tuple[tuple[float, ...], ...] = ()
    """Of a recipe that is tried: which validation rows were answered with the expert's label, by group."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics of earlier stages."""
    keep: int = 2
    """How many of the newest checkpoints are kept. The best one by validation is kept too."""
    validation: Sequence[Any] = ()
    validate_every: int = 0
    """Validate and write a checkpoint after every so many steps of the stage; 0: never."""
    patience: Patience = field(default_factory=lambda: Patience(0))
    divergence: Divergence = field(default_factory=Divergence)
    tokens_seen: int = 0
    resumed_from: tuple[int, ...] = ()
    step_seconds: float = 0.0
    """Seconds spent in steps by this process, without loading, validating and saving."""
    step_tokens: int = 0
    until: int | None = None
    """The step of the stage after which a recipe that is tried is measured."""
    limit_hours: float | None = None
    """The most hours of training; None: no limit."""
    spent_seconds: float = 0.0
    """Seconds that a recipe which is tried took up to a smaller part, with the answers to validation rows."""
    last_step: int = 0
    stopped_early_at: int | None = None
    _clock: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.total_steps = self.total_steps or self.first_step + len(self.steps)

    def count_seconds_from(self, before: float) -> None:
        """Start the clock at ``before``, the seconds that earlier attempts at this run trained, or at
        ``spent_seconds`` if that is more: a checkpoint does not know what followed it."""
        self._clock = time.monotonic() - max(before, self.spent_seconds)

    @property
    def seconds(self) -> float:
        """Seconds of training, including those of earlier attempts up to their last checkpoint."""
        return time.monotonic() - self._clock

    def counted(self, tokens: int) -> None:
        self.tokens_seen += tokens
        self.step_tokens += tokens

    def ended(self, stage_step: int) -> None:
        """Note the step of the stage after which training ended."""
        self.last_step = self.first_step + stage_step
        if stage_step < len(self.steps):
            self.stopped_early_at = self.last_step

    def validates_at(self, stage_step: int) -> bool:
        """Return whether to validate after the stage's step ``stage_step``. The last step is always
        validated."""
        at_all = bool(self.validation) and self.validate_every > 0
        return at_all and (
            stage_step % self.validate_every == 0 or stage_step in (self.until, len(self.steps))
        )

    @property
    def end(self) -> int:
        """The step of the stage after which this process has done its part."""
        return len(self.steps) if self.until is None else self.until

    @property
    def is_over_limit(self) -> bool:
        return self.limit_hours is not None and self.seconds > self.limit_hours * 3600

    def record_ids(self, step: int) -> tuple[str, ...]:
        """Return the source records of the examples in the stage's optimizer step ``step``, counted from
        1."""
        if not 0 < step <= len(self.steps):
            return ()
        ids = (record for index in self.steps[step - 1] for record in self.items[index].record_ids)
        return tuple(sorted(set(ids)))
