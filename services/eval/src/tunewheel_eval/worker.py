"""The measuring process: ``python -m tunewheel_eval.worker job.json``.

It writes a line of JSON per batch to standard output, and rows to the files that the job names. It ends when
its standard input closes, which happens when the parent ends in any way.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pydantic import BaseModel
from tunewheel_contracts.errors import TunewheelError
from tunewheel_runtime.worker_spans import worker_span

from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.job import UNFIT_EXIT, UNREACHABLE_EXIT, Broken, Job, Unfit


def main() -> None:
    """Run the job named on the command line."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    path = Path(sys.argv[1])
    # Output that libraries print would garble the protocol, so it goes to standard error.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(line: BaseModel) -> None:
        protocol.write(f"{line.model_dump_json()}\n")
        protocol.flush()

    from tunewheel_basemodel.errors import BaseModelUnreachable

    from tunewheel_eval.measuring import measure

    try:
        job = Job.model_validate_json(path.read_text("utf-8"))
        # Another worker on this disk, whose lease has just moved here, may still be writing its last rows.
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with worker_span("eval", "measuring process"):
                measure(job, say)
    except UnfitCandidate as error:
        say(Unfit(field=error.field, reason=error.reason))
        sys.exit(UNFIT_EXIT)
    except BaseModelUnreachable as error:
        print(error, file=sys.stderr)
        sys.exit(UNREACHABLE_EXIT)
    except Exception as error:
        say(Broken(reason=_reason(error)))
        raise


def _reason(error: Exception) -> str:
    """Return what broke the worker, without a library's message, which may quote examples."""
    if isinstance(error, TunewheelError):
        return str(error)
    if (
        isinstance(error, MemoryError | BrokenProcessPool)
        or "allocate" in str(error)
        or "out of memory" in str(error)
    ):
        return "memory ran out; give eval more memory, or lower TUNEWHEEL_EVAL_BATCH_SIZE"
    return f"{type(error).__name__}; the measuring process's log says more"


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
