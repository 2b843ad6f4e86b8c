"""Deletes directories of runs that no process of this machine needs any more."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

from tunewheel_runtime.store import ObjectStore

from tunewheel_train.runs.runs import manifest_path


async def sweep(store: ObjectStore, runs_dir: Path, *, busy: Collection[str] = ()) -> None:
    """Delete the directories of complete runs.

    These are left if another worker finished the run, or if this one was killed before it cleaned up. They
    can be large: a checkpoint of ``full`` has 12 bytes per parameter. Runs in ``busy`` are skipped; they
    clean up themselves. Raises TransientError.
    """
    for directory in await asyncio.to_thread(lambda: sorted(runs_dir.glob("run-*"))):
        if directory.name not in busy and await store.exists(manifest_path(directory.name)):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
