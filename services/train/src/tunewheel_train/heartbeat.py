"""The sign of life of a training process between two messages: a step may last minutes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Heartbeat:
    """Calls ``beat`` every ``seconds`` from a thread of its own while the body runs.

    PyTorch lets other threads run while it computes. A process that is stopped, swapped out or dead beats no
    more; one that waits for ever still does.
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
        with contextlib.suppress(OSError):  # nobody listens any more; the process ends by itself
            while not self._over.wait(self._seconds):
                self._beat()
