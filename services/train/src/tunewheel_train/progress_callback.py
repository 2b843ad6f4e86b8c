"""Tells the service how far training is, and brings its wish to stop to the trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tunewheel_train import checkpoints
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Checkpointed, Message, Progressed


class ProgressCallback(TrainerCallback):
    """Reports every step and every checkpoint; on ``should_stop`` has a checkpoint written and stops."""

    def __init__(
        self,
        trainer: Any,
        report: Callable[[Message], None],
        should_stop: Callable[[], bool],
        epochs_per_step: float,
    ) -> None:
        self._trainer = trainer
        self._report = report
        self._should_stop = should_stop
        self._epochs_per_step = epochs_per_step
        self._began = (0.0, 0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = (time.monotonic(), self._trainer.tokens_seen, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._should_stop() and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        demand_finite(float(logs["loss"]), state.global_step, state.max_steps)
        began, tokens, step = self._began
        elapsed = max(time.monotonic() - began, 1e-9)
        per_step = elapsed / max(state.global_step - step, 1)
        self._report(
            Progressed(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=state.global_step * self._epochs_per_step,
                loss=float(logs["loss"]),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                grad_norm=float(logs["grad_norm"]) if logs.get("grad_norm") is not None else None,
                tokens_per_second=(self._trainer.tokens_seen - tokens) / elapsed,
                eta_seconds=(state.max_steps - state.global_step) * per_step,
            )
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        path = Path(args.output_dir) / checkpoints.name_of(state.global_step)
        self._report(Checkpointed(step=state.global_step, path=str(path)))


def demand_finite(loss: float, step: int, total_steps: int) -> None:
    """Raise RunFailed when training diverged: no later step mends weights that are no numbers."""
    if not math.isfinite(loss):
        raise RunFailed(
            field="train.learning_rate",
            reason="made the loss diverge to no number; lower it, or raise warmup_fraction",
            step=step,
            total_steps=total_steps,
        )
