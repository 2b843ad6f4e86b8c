"""Signs of life of a training process between two messages: a step may last minutes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from tunewheel_train.progress import Alive, Message, Searching

_IO = Path("/proc/self/io")
_MUCH = 1 << 20
"""So many bytes must be read or written between two signs. A process that hangs writes less into its log."""


def moved_bytes() -> int:
    """Return how many bytes this process has read from and written to files (proc_pid_io(5)); 0: unknown."""
    try:
        counted = dict(line.split(": ") for line in _IO.read_text().splitlines())
    except OSError:
        return 0
    return int(counted["rchar"]) + int(counted["wchar"])


class SearchSigns:
    """The signs of a process that searches a base model: a download of hours has no steps to report."""

    def __init__(self, moved: Callable[[], int] = moved_bytes) -> None:
        self._moved = moved
        self._told = moved()

    def __call__(self) -> Message:
        now = self._moved()
        if now - self._told < _MUCH:
            return Alive()
        self._told = now
        return Searching(moved_bytes=now)


class Heartbeat:
    """Calls ``beat`` every ``seconds`` from a thread of its own while the body runs.

    PyTorch lets other threads run while it computes. The beat ends when the process is stopped, swapped out
    or dead. It does not end when the process hangs.
    """

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the service is gone; the process will end by itself
            while not self._over.wait(self._seconds):
                self._beat()
