"""The worker process that runs builds: ``python -m tunewheel_curate.builds.worker``.

The worker loads the libraries of a build once, which takes ten seconds of a processor. Then it reads
``BuildOrder``s from stdin, a line of JSON each. It forks for each order. The fork writes the version's files
to the order's folder, answers with a ``BuildOutcome`` (a line of JSON on stdout) and exits, which frees its
memory. The service keeps stdin open. When stdin closes, the service is gone, and worker and fork exit too.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from tunewheel_runtime.worker_spans import worker_span

from tunewheel_curate.builds.order import BuildOrder

SCRATCH_PREFIX = "tunewheel-curate-"
"""The name prefix of the temporary folder that contains the order's folder."""

TAKEN = b"taken\n"
"""The line that says that the worker has read the order. A failure before this line is not the build's
fault."""


def load() -> None:
    """Import everything that takes seconds to load, so that a build starts at once."""
    from tunewheel_basemodel.tokenizer import import_library
    from tunewheel_contracts.formats.data_quality import PiiPolicy
    from tunewheel_outputs.languages import language_of
    from tunewheel_redaction.folding import fold
    from tunewheel_redaction.recognizers import recognizers_of

    import_library()
    for name in ("tunewheel_curate.builds.one_build", "great_expectations.expectations"):
        importlib.import_module(name)
    for name in ("feature_extraction.text", "linear_model", "model_selection"):
        importlib.import_module(f"sklearn.{name}")  # for labels/suspects.py
    language_of("In which language do people ask?")
    for entity in PiiPolicy().wanted:
        recognizers_of(entity)
    fold("")


def main() -> None:
    """Run orders one after the other, until stdin ends or a build dies."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is only for answers
    # A collection in the fork would copy the shared pages and take a quarter of a second per build. Hence
    # disable and freeze, as the documentation of gc.freeze advises.
    gc.disable()
    load()
    gc.freeze()
    while line := sys.stdin.readline():
        os.write(answers, TAKEN)
        # No library has started its thread pool here, so each fork starts its own.
        build = os.fork()
        if build == 0:
            _answer(BuildOrder.model_validate_json(line), answers)
        _, status = os.waitpid(build, 0)
        if code := os.waitstatus_to_exitcode(status):
            os._exit(code if code > 0 else 128 - code)
    os._exit(1)


def _answer(order: BuildOrder, answers: int) -> NoReturn:
    """Run ``order``, write the answer and end the process."""
    code = 1
    gc.enable()
    try:
        from tunewheel_curate.builds.one_build import run_build

        threading.Thread(target=_end_with_service, args=(order,), daemon=True).start()
        with worker_span("curate", "build process", order.trace):
            line = run_build(order).model_dump_json() + "\n"
        with os.fdopen(answers, "w") as stream:
            stream.write(line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_service(order: BuildOrder) -> None:
    """Wait until the service is gone. Then delete the order's folder and end the process at once."""
    hangup = select.poll()
    hangup.register(sys.stdin, 0)  # waits for a hang-up only: the next order is for the worker to read
    hangup.poll()
    scratch = Path(order.folder).parent
    ours = scratch.name.startswith(SCRATCH_PREFIX)
    shutil.rmtree(scratch if ours else order.folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
