"""The training process: ``python -m tunewheel_train.worker train|locate JOB``.

It is a process of its own for two reasons: the service stays small and responsive while a step takes minutes,
and memory is freed when the run ends. It reports progress on stdout as JSON lines (``progress.py``), with
regular signs of life (``Heartbeat``). Output of libraries goes to stderr. On SIGTERM it writes a
checkpoint after the current step and exits with 75.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

from tunewheel_basemodel.errors import BaseModelUnreachable
from tunewheel_runtime.worker_spans import worker_span

from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.job import Job
from tunewheel_train.progress import Alive, Failed, Located, Message, Searching, Stopped, write
from tunewheel_train.shortage import disk_full, is_disk_full, is_out_of_memory, out_of_memory
from tunewheel_train.trainers import checkpoints

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


EXIT_FAILED = 65
"""EX_DATAERR of sysexits.h: the run cannot succeed without a change."""
EXIT_UNREACHABLE = 69
"""EX_UNAVAILABLE of sysexits.h: the hub does not answer; a later attempt may succeed."""
EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: stopped on request, to be continued."""
_PR_SET_PDEATHSIG = 1
Recipe = Callable[..., Message]


class StopRequest:
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.wanted = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._want)

    def _want(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True

    def __call__(self) -> bool:
        return self.wanted


class Voice:
    """Sends messages to the service, one line at a time. Threads may share it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.first = os.environ.get("LOCAL_RANK", "0") == "0"

    def report(self, message: Message) -> None:
        """Send ``message``. If several processes train together, only the first one of each machine sends."""
        if self.first:
            self.insist(message)

    def insist(self, message: Message) -> None:
        """Send ``message`` from any process, because no other process knows of it."""
        with self._lock:
            write(self._stream, message)


def main(arguments: list[str] | None = None, *, recipe: Recipe | None = None) -> int:
    """Run one job; return the exit code. ``recipe`` replaces ``recipe.train``."""
    action, path = arguments if arguments is not None else sys.argv[1:]
    stop = StopRequest()
    stop.listen()
    die_with_parent()
    job = Job.model_validate_json(Path(path).read_text())
    if action == "train" and recipe is None and job.processes == 0:
        from tunewheel_train.model.process_group import divide

        if divide(job):
            die_with_parent()
    voice = Voice(claim_stdout())
    sign = SearchSigns() if action == "locate" else Alive
    with (
        Heartbeat(lambda: voice.report(sign()), job.alive_seconds),
        worker_span("train", f"{action} process") if voice.first else contextlib.nullcontext(),
    ):
        return _run(action, job, voice, stop, recipe)


def _run(action: str, job: Job, voice: Voice, stop: StopRequest, recipe: Recipe | None) -> int:
    report = voice.report
    try:
        if action == "locate":
            report(locate(job))
            return 0
        with exclusive(job.work_dir, stop) if voice.first else contextlib.nullcontext():
            report(train(job, report, stop, recipe))
        return 0
    except RunStopped as error:
        report(Stopped(step=error.step))
        return EXIT_STOPPED
    except RunFailed as error:
        report(failed(error))
        return EXIT_FAILED
    except BaseModelUnreachable as error:
        report(Failed(field=error.field, reason=error.reason, unreachable=True))
        return EXIT_UNREACHABLE
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk of the log may be full
            traceback.print_exc()
        if (shortage := of_shortage(error)) is None:
            return 1
        voice.insist(shortage)  # only this process knows, even if it is not the first
        return EXIT_FAILED


def failed(error: RunFailed) -> Failed:
    """Return the message for a run that cannot succeed."""
    return Failed(
        field=error.field, reason=error.reason, step=error.step, total_steps=error.total_steps,
        record_ids=error.record_ids,
    )  # fmt: skip


def of_shortage(error: Exception) -> Failed | None:
    """Return the message for a machine with too little memory or disk; None: it is another error."""
    if is_out_of_memory(error):
        return out_of_memory()
    return failed(disk_full(error)) if is_disk_full(error) else None


def locate(job: Job) -> Located:
    """Find the job's base model; download or convert it if needed."""
    from tunewheel_basemodel.facts import facts_of

    from tunewheel_train.recipe import locate as find

    base = find(job)
    return Located(name=base.name, revision=base.revision, path=base.path, facts=facts_of(base))


def train(
    job: Job, report: Callable[[Message], None], stop: StopRequest, recipe: Recipe | None = None
) -> Message:
    """Run the recipe on the job's arguments; see ``recipe.train`` for errors."""
    from tunewheel_train.recipe import train as the_recipe

    run = recipe or the_recipe
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return run(job, report=report, should_stop=stop)


class exclusive:
    """Hold the lock of the run's directory. Wait for a worker that is still writing its last checkpoint, then
    delete unfinished checkpoints."""

    def __init__(self, work_dir: Path, stop: StopRequest) -> None:
        work_dir.mkdir(parents=True, exist_ok=True)
        self._work_dir = work_dir
        self._file = (work_dir / ".lock").open("w")
        self._stop = stop

    def __enter__(self) -> None:
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                checkpoints.drop_unfinished(self._work_dir)
                return
            except BlockingIOError:
                if self._stop():
                    raise RunStopped(0) from None
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: nobody would read its result."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def claim_stdout() -> IO[str]:
    """Return stdout for messages. File descriptor 1 becomes stderr for everything else in this process."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
