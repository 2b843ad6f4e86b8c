"""Reports the progress of training to the service, and stops the trainer: on the service's request, by early
stopping, or because the loss diverged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tunewheel_train.errors import RunFailed
from tunewheel_train.model.machine import gpu_bytes, present_bytes, synchronize
from tunewheel_train.progress import Checkpointed, Message, Progressed
from tunewheel_train.trainers import checkpoints
from tunewheel_train.trainers.course import RATES
from tunewheel_train.trainers.handover import from_first


class ProgressCallback(TrainerCallback):
    """Reports every step and every checkpoint. On ``should_stop`` it writes a checkpoint and stops.

    It validates when the course says so, and stops when the course's patience is over.
    """

    def __init__(
        self, trainer: Any, report: Callable[[Message], None], should_stop: Callable[[], bool]
    ) -> None:
        self._trainer = trainer
        self._report = report
        self._should_stop = should_stop
        self._began = (0.0, 0, 0)
        self._step_began = 0.0
        self._validated: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = (time.monotonic(), self._trainer.course.tokens_seen, state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        synchronize()  # a GPU may still be busy with earlier work, such as a validation
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        course = self._trainer.course
        synchronize()  # work is queued on a GPU faster than it is done
        course.step_seconds += time.monotonic() - self._step_began
        self._validated = None
        if course.validates_at(state.global_step):
            # nodes may round differently, but all must stop together: use the first process's loss
            self._validated = from_first(float(self._trainer.validate()))
            course.patience.saw(self._validated, course.first_step + state.global_step)
            control.should_training_stop |= course.patience.over
        ends = state.global_step == course.until or self._all_should_stop()
        if ends and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
        return control

    def _all_should_stop(self) -> bool:
        """Return whether any process that trains together was asked to stop, or is over the limit of hours.
        Then all of them stop."""
        accelerator = self._trainer.accelerator
        wanted = self._should_stop() or self._trainer.course.is_over_limit
        if accelerator.num_processes == 1:
            return wanted
        import torch

        return bool(accelerator.gather(torch.tensor([int(wanted)], device=accelerator.device)).any())

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        course = self._trainer.course
        step = course.first_step + state.global_step
        norm = float(logs["grad_norm"]) if logs.get("grad_norm") is not None else None
        self._demand_convergence(float(logs["loss"]), norm, state.global_step)
        began, tokens, first = self._began
        elapsed = max(time.monotonic() - began, 1e-9)
        per_step = elapsed / max(state.global_step - first, 1)
        self._report(
            Progressed(
                step=step,
                total_steps=course.total_steps,
                epoch=state.global_step * course.epochs / max(len(course.steps), 1),
                loss=float(logs["loss"]),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                grad_norm=norm,
                tokens_per_second=(course.tokens_seen - tokens) / elapsed,
                eta_seconds=(course.total_steps - step) * per_step,
                memory_bytes=present_bytes(),
                gpu_memory_bytes=gpu_bytes(),
                validation_loss=self._validated if course.stage == "examples" else None,
                figures=self._trainer.figures(logs),
            )
        )

    def _demand_convergence(self, loss: float, norm: float | None, stage_step: int) -> None:
        """Raise RunFailed if training diverged: later steps cannot repair the weights."""
        course = self._trainer.course
        complaint = course.divergence.saw(loss)
        if complaint is None and norm is not None and not math.isfinite(norm):
            # report it now, with the records of this step; after the last step there is no further loss
            complaint = "made the gradients diverge to a value that is not finite"
        if complaint is None:
            return
        raise RunFailed(
            field=RATES[course.stage],
            reason=f"{complaint}; lower it, or raise warmup_fraction",
            step=course.first_step + stage_step,
            total_steps=course.total_steps,
            record_ids=course.record_ids(stage_step),
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = self._trainer.course.first_step + state.global_step
        self._report(Checkpointed(step=step, path=str(Path(args.output_dir) / checkpoints.name_of(step))))
