"""The training process: ``python -m tunewheel_train.worker train|locate JOB``.

It runs apart from the service so that the service stays small and answers while a step takes minutes, and so
that memory goes back when the run ends. Progress goes to stdout as JSON lines (``progress.py``); whatever a
library prints goes to stderr. SIGTERM: a checkpoint after the present step, then exit 75.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed, Located, Message, Stopped, write

EXIT_FAILED = 65
"""EX_DATAERR of sysexits.h: the run cannot succeed as it stands."""
EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: stopped on request, to be continued."""
_PR_SET_PDEATHSIG = 1


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


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    action, path = arguments if arguments is not None else sys.argv[1:]
    stop = StopRequest()
    stop.listen()
    die_with_parent()
    stream = claim_stdout()
    job = Job.model_validate_json(Path(path).read_text())

    def report(message: Message) -> None:
        write(stream, message)

    try:
        if action == "locate":
            report(locate(job))
            return 0
        with exclusive(job.work_dir, stop):
            report(train(job, report, stop))
        return 0
    except RunStopped as error:
        report(Stopped(step=error.step))
        return EXIT_STOPPED
    except RunFailed as error:
        report(Failed(field=error.field, reason=error.reason, step=error.step, total_steps=error.total_steps))
        return EXIT_FAILED
    except Exception as error:
        traceback.print_exc()
        if not is_out_of_memory(error):
            return 1
        report(Failed(field="train.micro_batch_size", reason="does not fit this machine's memory; lower it"))
        return EXIT_FAILED


def is_out_of_memory(error: Exception) -> bool:
    """True for what Python and PyTorch raise when an allocation is refused."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def locate(job: Job) -> Located:
    """Find (and where needed download or convert) the job's base model."""
    from tunewheel_train.recipe import locate as find

    base = find(job.base_model, cache_dir=job.cache_dir)
    return Located(name=base.name, revision=base.revision)


def train(job: Job, report: Callable[[Message], None], stop: StopRequest) -> Message:
    """Run the recipe on the job's arguments; see ``recipe.train`` for errors."""
    from tunewheel_train.recipe import train as run

    logging.getLogger("transformers").setLevel(logging.ERROR)
    options = job.model_dump(exclude={"recipe"}) | job.recipe.model_dump(mode="json")
    return run(**options, report=report, should_stop=stop)


class exclusive:
    """Hold the run's directory: a worker that is still writing its last checkpoint is waited for."""

    def __init__(self, work_dir: Path, stop: StopRequest) -> None:
        work_dir.mkdir(parents=True, exist_ok=True)
        self._file = (work_dir / ".lock").open("w")
        self._stop = stop

    def __enter__(self) -> None:
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    """Keep stdout for messages; file descriptor 1 becomes stderr for everybody else."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
