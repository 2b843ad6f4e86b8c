"""Downloads adapters and whole models from the object store into the folder from which engines load them.

Files are verified by their hashes. Only safetensors are accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from weakref import WeakValueDictionary

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.store import ObjectStore

LONGEST_HEADER = 100_000_000
"""Bytes; the limit that the safetensors format sets."""
KEPT_SECONDS = 3_600.0
"""Folders that were asked for this recently are not deleted: another gateway that shares the directory may
already need a model that this gateway has not heard of."""


class InvalidAdapter(TunewheelError):
    """The adapter must not reach an engine; the message names the file and the fix."""


class AdapterFiles:
    """Downloads adapters into ``root``, one folder per model id.

    ``root/.laid`` holds an empty file for each folder that a gateway made. Its modification time says when
    the model was asked for last. Folders without such a file are other people's adapters and are never
    deleted.
    """

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
        if adapter.unloadable is not None:
            raise InvalidAdapter(f"{adapter.model_id} {adapter.unloadable}")
        place = self._root / adapter.model_id
        # Several engines may need the same adapter at once; it is downloaded once.
        async with self._laying.setdefault(adapter.model_id, asyncio.Lock()):
            await asyncio.to_thread(self._note, adapter.model_id)
            folder = await self._store.fetch_directory(adapter.files, adapter.path, place)
        for file in sorted(folder.glob("*.safetensors")):
            await asyncio.to_thread(check_safetensors, file)
        return folder

    def is_recent(self, model_id: str) -> bool:
        """Return whether a gateway that shares ``root`` asked for ``model_id`` in the last
        ``KEPT_SECONDS``."""
        try:
            return time.time() - (self._laid / model_id).stat().st_mtime < KEPT_SECONDS
        except OSError:
            return False

    async def remove_except(self, kept: Collection[str]) -> list[str]:
        """Delete the folders that gateways made, except those in ``kept`` and those asked for recently.
        Return the model ids of the deleted folders. Gateways that share ``root`` may do the same at the same
        time. Raises OSError: a folder cannot be deleted."""
        return await asyncio.to_thread(self._remove_except, kept)

    def _note(self, model_id: str) -> None:
        self._laid.mkdir(parents=True, exist_ok=True)
        (self._laid / model_id).touch()

    def _remove_except(self, kept: Collection[str]) -> list[str]:
        removed: list[str] = []
        for mark in sorted(self._laid.glob("*")):
            with contextlib.suppress(FileNotFoundError):  # another gateway has just deleted it
                if mark.name in kept or time.time() - mark.stat().st_mtime < KEPT_SECONDS:
                    continue
                if (folder := self._root / mark.name).is_dir():
                    shutil.rmtree(folder)
                    removed.append(mark.name)
                mark.unlink()  # Last, so that a crash before this line leaves the folder to the next call.
        return removed


def check_safetensors(file: Path) -> None:
    """Check the header of ``file``: an 8-byte little-endian length, then JSON of that length.

    Source: the safetensors format specification (huggingface/safetensors, README). Raises InvalidAdapter.
    """
    size, header = file.stat().st_size, None
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size >= 10 and 2 <= length <= min(size - 8, LONGEST_HEADER):
            with contextlib.suppress(ValueError):
                header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise InvalidAdapter(
            f"{file.parent.name}/{file.name} is not safetensors; save it with save_pretrained"
        )
