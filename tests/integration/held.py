"""Services and their workers that stay in the middle of their work until they are interrupted or let go.

A test that waits for the middle of something, to kill it there, comes too late where it is stalled itself. So
these wait for as long as a file of the name ``training``, ``measuring``, ``building`` or ``appending`` lies
in the folder that the environment names (``HELD_IN``). Without it they are what they always are.

``python held.py service tunewheel_train`` is the service with such workers, ``python held.py worker
tunewheel_train ARGUMENTS`` one of these.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewheel_runtime.process import run

FOLDER = "HELD_IN"
STEPS = 35
"""After so many a training process waits, each anew."""
ROWS = 3
"""Of the candidate, after which eval's worker waits."""
APPENDS = 3
"""Batches of records, after which curate waits."""


def held_service(package: str) -> list[str]:
    """Return the command of the service ``package`` with workers that can be held."""
    return [sys.executable, __file__, "service", package]


def wait_while_held(point: str, *, unless: Callable[[], bool] = lambda: False) -> None:
    folder = os.environ.get(FOLDER)
    while folder and (Path(folder) / point).exists() and not unless():
        time.sleep(0.01)


def hold_training() -> None:
    from tunewheel_basemodel.loading import import_bitsandbytes

    import_bitsandbytes()  # before anything that imports peft
    from tunewheel_train.trainers.progress_callback import ProgressCallback

    begin = ProgressCallback.on_step_begin

    def beginning(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step - self._began[2] == STEPS:
            wait_while_held("training", unless=self._should_stop)
        begin(self, args, state, control, **more)

    ProgressCallback.on_step_begin = beginning


def hold_measuring() -> None:
    from tunewheel_basemodel.loading import import_bitsandbytes

    import_bitsandbytes()
    from tunewheel_contracts.formats.scorecard import Role
    from tunewheel_eval.measuring import _Work

    tell = _Work.tell

    def telling(self: Any) -> None:
        tell(self)
        if self.contestant.role is Role.CANDIDATE and len(self._file.rows) >= ROWS:
            wait_while_held("measuring")

    _Work.tell = telling


def hold_building() -> None:
    from tunewheel_curate.builds.worker import load

    load()
    from tunewheel_curate.versions import versioning

    write = versioning._write

    def writing(folder: Path, prefix: str, name: str, data: bytes) -> Any:
        written = write(folder, prefix, name, data)
        if name == "train.parquet":
            wait_while_held("building")
        return written

    versioning._write = writing


def hold_appending() -> None:
    from tunewheel_curate.records.table import RecordTable

    append, appended = RecordTable.append, []

    def appending(self: Any, *args: Any, **named: Any) -> int:
        new = append(self, *args, **named)
        appended.append(new)
        if len(appended) >= APPENDS:
            wait_while_held("appending")
        return new

    RecordTable.append = appending


WORKERS: dict[str, tuple[str, Callable[[], None]]] = {
    "tunewheel_train": ("tunewheel_train.worker", hold_training),
    "tunewheel_eval": ("tunewheel_eval.worker", hold_measuring),
    "tunewheel_curate": ("tunewheel_curate.builds.worker", hold_building),
}
"""By package: the module of its worker, and what makes that one wait."""


def serve(package: str) -> None:
    if package == "tunewheel_curate":
        hold_appending()
    settings = importlib.import_module(f"{package}.settings").Settings()
    worker = (sys.executable, __file__, "worker", package)
    run(importlib.import_module(f"{package}.main").make_app(settings, worker=worker))


def work(package: str, arguments: list[str]) -> int:
    module, hold = WORKERS[package]
    if "locate" not in arguments:  # which has no middle, and need not import what training does
        hold()
    sys.argv[1:] = arguments
    return importlib.import_module(module).main() or 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case "service", package:
            serve(package)
        case "worker", package, *rest:
            sys.exit(work(package, rest))
