"""Adapters and whole models from the object store to the folder they are loaded from: verified, and
safetensors only."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from weakref import WeakValueDictionary

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.store import ObjectStore

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
"""Formats that run code when they are loaded."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
WHOLE_MODEL = ("config.json", "*.safetensors")
"""Files without which nothing can be loaded, as patterns: a whole model may have its weights in several."""
LONGEST_HEADER = 100_000_000
"""Bytes; the bound that the safetensors format itself sets."""
KEPT_SECONDS = 3_600.0
"""What was asked for so recently stays: another gateway on the same folder may know of it first."""


class InvalidAdapter(TunewheelError):
    """The adapter must not reach an engine; the message names the file and the fix."""


class AdapterFiles:
    """Lays adapters out below ``root``, one folder per model id. Which are its own, and when each was asked
    for last, tell empty files in ``.laid``: people may put adapters of their own beside them."""

    def __init__(self, store: ObjectStore, root: Path) -> None:
        self._store = store
        self._root = root
        self._laid = root / ".laid"
        self._laying: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def materialise(self, adapter: AdapterRef) -> Path:
        """Return the folder that holds ``adapter``, whole and verified.

        Raises:
            InvalidAdapter: pickles, missing files, or weights that are not safetensors.
            CorruptArtifact, ArtifactMissing, TransientError: see ``ObjectStore``.
        """
        check_names(adapter)
        place = self._root / adapter.model_id
        async with self._laying.setdefault(adapter.model_id, asyncio.Lock()):  # for several engines at once
            await asyncio.to_thread(self._note, adapter.model_id)
            folder = await self._store.fetch_directory(adapter.files, adapter.path, place)
        for file in sorted(folder.glob("*.safetensors")):
            await asyncio.to_thread(check_safetensors, file)
        return folder

    def is_recent(self, model_id: str) -> bool:
        """Tell whether any gateway on this folder asked for ``model_id`` lately."""
        try:
            return time.time() - (self._laid / model_id).stat().st_mtime < KEPT_SECONDS
        except OSError:
            return False

    async def remove_except(self, kept: Collection[str]) -> list[str]:
        """Delete the folders that were laid out here, are not ``kept`` and were not asked for lately; return
        their model ids.

        Raises:
            OSError: one cannot be deleted.
        """
        return await asyncio.to_thread(self._remove_except, kept)

    def _note(self, model_id: str) -> None:
        self._laid.mkdir(parents=True, exist_ok=True)
        (self._laid / model_id).touch()

    def _remove_except(self, kept: Collection[str]) -> list[str]:
        removed: list[str] = []
        for unfinished in self._root.glob(".fetch-*"):  # of a process that was killed
            if time.time() - unfinished.stat().st_mtime >= KEPT_SECONDS:
                shutil.rmtree(unfinished)
        for mark in sorted(self._laid.glob("*")):
            if mark.name in kept or time.time() - mark.stat().st_mtime < KEPT_SECONDS:
                continue
            if (folder := self._root / mark.name).is_dir():
                shutil.rmtree(folder)
                removed.append(mark.name)
            mark.unlink()  # last: a crash before it leaves the rest to the next time
        return removed


def check_names(adapter: AdapterRef) -> None:
    """Refuse what no engine could load, by the names of its files."""
    names = [PurePosixPath(ref.path).name for ref in adapter.files]
    for name in names:
        if PurePosixPath(name).suffix in PICKLES:
            raise InvalidAdapter(f"{adapter.model_id}/{name} is a pickle; save the adapter as safetensors")
    is_whole = adapter.method is TrainMethod.FULL
    for needed in WHOLE_MODEL if is_whole else ADAPTER:
        if not any(fnmatch(name, needed) for name in names):
            raise InvalidAdapter(f"{adapter.model_id} lacks {needed}; save it with save_pretrained")


def check_safetensors(file: Path) -> None:
    """Check the header of ``file``: an 8-byte little-endian length, then JSON of that length.

    Source: the safetensors format specification (huggingface/safetensors, README).

    Raises:
        InvalidAdapter
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 10 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise InvalidAdapter(
                f"{file.parent.name}/{file.name} is not safetensors; save it with save_pretrained"
            )
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise InvalidAdapter(
                f"{file.parent.name}/{file.name} is not safetensors ({error}); save it with save_pretrained"
            ) from error
    if not isinstance(header, dict):
        raise InvalidAdapter(
            f"{file.parent.name}/{file.name} has no safetensors header; save it with save_pretrained"
        )
