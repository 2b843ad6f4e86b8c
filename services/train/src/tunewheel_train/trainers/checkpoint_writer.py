"""Decides when a checkpoint is due, and writes checkpoints while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from tunewheel_contracts.formats.recipe import CHECKPOINT_SECONDS, CHECKPOINT_SHARE

from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Checkpointed, Message
from tunewheel_train.shortage import is_disk_full, is_out_of_memory
from tunewheel_train.trainers import checkpoints


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread. Training waits while the tensors are copied, and for an
    earlier checkpoint that is still being written. At the end of the body the last checkpoint is whole.

    Of the processes that train together only the first one writes; the others only give it their tensors.
    """

    def __init__(
        self, run_dir: Path, report: Callable[[Message], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_dir = run_dir
        self._report = report
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._unchanged: checkpoints.Unchanged = {}
        self._began = self._latest = clock()
        self._spent = self._cost = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def is_due(self, step: int, every: int) -> bool:
        """Return whether to write a checkpoint after ``step`` of the stage: every ``every`` steps if that
        takes at most ``CHECKPOINT_SHARE`` of the time, and after ``CHECKPOINT_SECONDS`` in any case. Raises
        as ``wait`` does."""
        if self._writing is not None and not self._writing.done():
            return False
        self.wait()
        now = self._clock()
        if now - self._latest >= CHECKPOINT_SECONDS:
            return True
        affordable = self._spent + self._cost <= CHECKPOINT_SHARE * (now - self._began)
        return step % every == 0 and affordable

    def save(self, trainer: Any) -> None:
        """Write the trainer's current state. Processes that train together call this together. Raises as
        ``wait`` does."""
        self.wait()
        self._latest = self._clock()
        snapshot = checkpoints.take(trainer, self._unchanged)
        if snapshot is None:
            return
        self._writing = self._pool.submit(self._write, snapshot, self._latest)
        if not snapshot.copied:
            self.wait()

    def wait(self) -> None:
        """Return when no checkpoint is being written. Raises OSError if the disk was full, or RunFailed if
        the checkpoint could not be written for another reason."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except Exception as error:
            if is_disk_full(error) or is_out_of_memory(error):
                raise
            raise RunFailed(field="(run)", reason=f"could not write a checkpoint: {error!r}") from error

    def _write(self, snapshot: checkpoints.Snapshot, began: float) -> None:
        path = checkpoints.write(snapshot, self._run_dir, self._unchanged)
        self._cost = self._clock() - began
        self._spent += self._cost
        self._report(Checkpointed(step=snapshot.step, path=str(path)))
