"""Opens the tokenizer of a dataset version, without a model, torch, or the hub."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tunewheel_contracts.errors import TunewheelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewheel_cli.datasets.versions import Version


class NoTokenizer(TunewheelError):
    """The base model's tokenizer is not available here, or cannot be used. The message gives the reason."""


async def open_tokenizer_of(version: Version) -> PreTrainedTokenizerBase:
    """Return the tokenizer that ``version`` was built with, else its base model's if it is on this machine.

    Raises NoTokenizer, TransientError.
    """
    from tunewheel_basemodel.errors import ModelFilesError
    from tunewheel_basemodel.tokenizer import import_library, open_tokenizer, save_tokenizer

    import_library(hide_torch=True)
    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        pinned, local = Path(name) / "pinned", Path(name) / "local"
        try:
            if await _fetch(version, pinned):
                return await asyncio.to_thread(open_tokenizer, pinned)
            base = version.manifest.spec.base_model
            await asyncio.to_thread(save_tokenizer, base, local, ask_hub=False)
            return await asyncio.to_thread(open_tokenizer, local)
        except ModelFilesError as error:
            raise NoTokenizer(error.reason) from error


async def _fetch(version: Version, folder: Path) -> bool:
    """Copy the version's pinned tokenizer files to ``folder``; return whether they are complete."""
    from tunewheel_basemodel.digest import sha256_directory

    use = version.manifest.tokenizer
    if use is None or use.sha256 is None:
        return False
    await asyncio.to_thread(folder.mkdir)
    for path in await version.store.list(f"tokenizers/{use.sha256}"):
        content = await version.store.read(path)
        await asyncio.to_thread((folder / PurePosixPath(path).name).write_bytes, content or b"")
    return await asyncio.to_thread(sha256_directory, folder) == use.sha256
