"""Reports the progress of training to the service, and stops the trainer: on the service's request, by early
stopping, or because the loss diverged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from tunewheel_train.errors import RunFailed
from tunewheel_train.model.machine import gpu_bytes, present_bytes, synchronize
from tunewheel_train.progress import Message, Progressed
from tunewheel_train.trainers.course import RATES
from tunewheel_train.trainers.handover import from_first


class ProgressCallback(TrainerCallback):
    """Reports every step, and decides after which a checkpoint is written. On ``should_stop`` it has one
    written and stops.

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
        self._validated, step = None, course.first_step + state.global_step
        if course.validates_at(state.global_step):
            # nodes may round differently, but all must stop together: use the first process's loss
            self._validated = from_first(float(self._trainer.validate()))
            course.patience.saw(self._validated, step)
        stops, is_due = self._agreed(
            self._should_stop() or course.is_over_limit,
            # the first process alone knows what checkpoints have taken
            self._trainer.accelerator.is_main_process
            and self._trainer.writer.is_due(state.global_step, args.save_steps),
        )
        stops |= course.patience.over or state.global_step in (course.until, state.max_steps)
        control.should_training_stop |= stops
        # the weights of the best validation are taken from its checkpoint
        is_best = self._validated is not None and course.patience.best_step == step
        control.should_save = stops or is_best or is_due
        return control

    def _agreed(self, *votes: bool) -> list[bool]:
        """Return for each vote whether any process that trains together cast it. Then all of them do it."""
        accelerator = self._trainer.accelerator
        if accelerator.num_processes == 1:
            return list(votes)
        import torch

        all_votes = accelerator.gather(torch.tensor([votes], dtype=torch.int, device=accelerator.device))
        return [bool(vote) for vote in all_votes.any(dim=0)]

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
