"""Adapters from the object store to the folder they are loaded from: verified, and safetensors only."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path, PurePosixPath

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.store import ObjectStore

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
"""Formats that run code when they are loaded."""
LONGEST_HEADER = 100_000_000
"""Bytes; the bound that the safetensors format itself sets."""


class InvalidAdapter(TunewheelError):
    """The adapter must not reach an engine; the message names the file and the fix."""


class AdapterFiles:
    """Lays adapters out below ``root``, one folder per model id."""

    def __init__(self, store: ObjectStore, root: Path) -> None:
        self._store = store
        self._root = root

    async def materialise(self, adapter: AdapterRef) -> Path:
        """Return the folder that holds ``adapter``, whole and verified.

        Raises:
            InvalidAdapter: pickles, missing files, a whole model, or weights that are not safetensors.
            CorruptArtifact, ArtifactMissing, TransientError: see ``ObjectStore``.
        """
        check_names(adapter)
        folder = await self._store.fetch_directory(adapter.files, adapter.path, self._root / adapter.model_id)
        for file in sorted(folder.glob("*.safetensors")):
            await asyncio.to_thread(check_safetensors, file)
        return folder


def check_names(adapter: AdapterRef) -> None:
    """Refuse what no engine could load as an adapter, by the names of its files."""
    if adapter.method is TrainMethod.FULL:
        raise InvalidAdapter(
            f"{adapter.model_id} is a whole model, not an adapter; start an engine with it as its base model"
        )
    names = [PurePosixPath(ref.path).name for ref in adapter.files]
    for name in names:
        if PurePosixPath(name).suffix in PICKLES:
            raise InvalidAdapter(f"{adapter.model_id}/{name} is a pickle; save the adapter as safetensors")
    for needed in ("adapter_config.json", "adapter_model.safetensors"):
        if needed not in names:
            raise InvalidAdapter(f"{adapter.model_id} lacks {needed}; save it with save_pretrained of peft")


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
            raise InvalidAdapter(f"{file.parent.name}/{file.name} is not safetensors; save it with peft")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise InvalidAdapter(
                f"{file.parent.name}/{file.name} is not safetensors ({error}); save it with peft"
            ) from error
    if not isinstance(header, dict):
        raise InvalidAdapter(f"{file.parent.name}/{file.name} has no safetensors header; save it with peft")
