"""Encodes a row of a dataset version as training does, with the tokenizer that the version was built with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.api.datasets import RowTokens
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

if TYPE_CHECKING:
    from tunewheel_basemodel.tokenizer import PreTrainedTokenizerBase


class Tokens:
    """Encodes rows. The tokenizer that was used last stays in memory."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._last: tuple[str, PreTrainedTokenizerBase] | None = None
        self._opening = asyncio.Lock()

    async def of_row(self, manifest: DatasetManifest, row: Mapping[str, Any], split: str) -> RowTokens:
        """Return the tokens of a row of ``split``.

        Raises:
            Refused: 404, the version was built without a tokenizer; 409, its chat template refuses the row.
            TransientError: the store is away.
        """
        async with self._opening:
            tokenizer = await self._tokenizer(manifest)
        return await asyncio.to_thread(_encoded, tokenizer, row, split, manifest.spec)

    async def _tokenizer(self, manifest: DatasetManifest) -> PreTrainedTokenizerBase:
        use = manifest.tokenizer
        if use is not None and self._last is not None and self._last[0] == use.sha256:
            return self._last[1]
        found = await self._store.read_folder(f"tokenizers/{use.sha256}") if use and use.sha256 else {}
        if use is None or use.sha256 is None or not found:
            reason = f"{manifest.dataset_id} was built without a tokenizer, so its tokens are not known"
            raise Refused(HTTPStatus.NOT_FOUND, "dataset_id", reason)
        self._last = use.sha256, await asyncio.to_thread(_opened, found)
        return self._last[1]


def _opened(files: Mapping[str, bytes]) -> PreTrainedTokenizerBase:
    from tunewheel_basemodel.tokenizer import import_library, open_tokenizer

    import_library()
    with TemporaryDirectory(prefix="tunewheel-tokenizer-") as folder:
        for name, data in files.items():
            (Path(folder) / Path(name).name).write_bytes(data)
        return open_tokenizer(Path(folder))


def _encoded(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], split: str, spec: ProjectSpec
) -> RowTokens:
    from tunewheel_basemodel.chat import encode_row, pieces, with_variables
    from tunewheel_basemodel.errors import InvalidChat

    tokenizer = with_variables(tokenizer, spec.task.chat_template_kwargs)
    try:
        ids, mask = encode_row(tokenizer, row)
        texts = pieces(tokenizer, row["messages"])
    except InvalidChat as error:
        raise Refused(HTTPStatus.CONFLICT, "row_id", str(error)) from error
    return RowTokens(
        row_id=row["example_id"], split=split, pieces=tuple(texts), ids=tuple(ids),
        learnt=tuple(map(bool, mask)), longest=spec.train.max_tokens,
    )  # fmt: skip
