"""Directories of runs that nobody goes on with on this machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

from tunewheel_runtime.store import ObjectStore

from tunewheel_train.runs.runs import manifest_path


async def sweep(store: ObjectStore, runs_dir: Path, *, busy: Collection[str] = ()) -> None:
    """Delete the directories of runs that are complete: those that another worker finished after this one had
    lost them, and those whose worker was killed before it tidied up. A checkpoint of ``full`` is 12 bytes per
    parameter, and nobody else would. Runs that are ``busy`` here tidy up themselves. Raises TransientError.
    """
    for directory in await asyncio.to_thread(lambda: sorted(runs_dir.glob("run-*"))):
        if directory.name not in busy and await store.exists(manifest_path(directory.name)):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
