"""What is timed of a step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_train.trainers.course import Course


def test_the_clock_is_read_when_the_gpu_has_done_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is given work at once and does it when it is waited for."""
    from tunewheel_train.trainers import progress_callback  # seconds of a processor

    now, queued = [100.0], [0.0]

    def wait() -> None:
        now[0], queued[0] = now[0] + queued[0], 0.0

    monkeypatch.setattr(progress_callback, "synchronize", wait)
    monkeypatch.setattr(progress_callback.time, "monotonic", lambda: now[0])
    course = Course(items=[], steps=[[0], [0]], micro_batch_size=1)
    trainer = SimpleNamespace(course=course, writer=SimpleNamespace(is_due=lambda step, every: False))
    trainer.accelerator = SimpleNamespace(num_processes=1, is_main_process=True)
    callback = progress_callback.ProgressCallback(trainer, lambda message: None, lambda: False)
    args, control = SimpleNamespace(save_steps=1), SimpleNamespace(should_training_stop=False)
    for step, before, during in ((1, 5.0, 2.0), (2, 3.0, 4.0)):
        state: Any = SimpleNamespace(global_step=step, max_steps=2)
        queued[0] += before  # loading, or a validation
        callback.on_step_begin(args, state, control)
        queued[0] += during
        callback.on_step_end(args, state, control)
    assert course.step_seconds == 2.0 + 4.0
