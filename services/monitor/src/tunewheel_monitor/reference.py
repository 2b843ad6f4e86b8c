"""The reference of the input detector: the texts of the dataset that production was trained on."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest, ExampleFormat
from tunewheel_runtime.static_embedding import StaticEmbedder, Vectors
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_monitor.drift import InputReference

log = structlog.get_logger(__name__)

KEPT = 8
"""Fitted references in memory, the least recently used goes first."""
FEWEST_TEXTS = 10


class ReferenceUnusable(Exception):
    """The dataset cannot serve as a reference; the message says why."""


@dataclass(frozen=True)
class References:
    """Fits references and remembers them. A dataset that is not in the store is reported once."""

    store: ObjectStore
    embedder: StaticEmbedder
    limit: int
    _fitted: OrderedDict[str, InputReference | None]

    @classmethod
    def of(cls, store: ObjectStore, embedder: StaticEmbedder, *, limit: int) -> References:
        return cls(store, embedder, limit, OrderedDict())

    async def get(self, dataset_id: str) -> InputReference | None:
        """Return the reference of ``dataset_id``, None where it is unusable (an error in the log says why).

        Raises:
            TransientError: the store cannot be reached.
        """
        if dataset_id not in self._fitted:
            try:
                self._fitted[dataset_id] = await self._fit(dataset_id)
            except (ReferenceUnusable, ArtifactMissing, CorruptArtifact, InvalidEvent) as error:
                log.error("reference_unusable", dataset_id=dataset_id, reason=str(error))
                self._fitted[dataset_id] = None
            while len(self._fitted) > KEPT:
                self._fitted.popitem(last=False)
        self._fitted.move_to_end(dataset_id)
        return self._fitted[dataset_id]

    async def _fit(self, dataset_id: str) -> InputReference:
        path = f"datasets/{dataset_id}/manifest.json"
        data = await self.store.read(path)
        if data is None:
            raise ArtifactMissing(f"{path} is not in {self.store.url}; is this the store curate writes to?")
        manifest = decode_data(DatasetManifest, data)
        splits = [await self.store.get(ref) for ref in (manifest.train, manifest.holdout)]
        return await asyncio.to_thread(self._embed, splits)

    def _embed(self, splits: Sequence[bytes]) -> InputReference:
        texts = reference_texts([pl.read_parquet(io.BytesIO(split)) for split in splits], limit=self.limit)
        if len(texts) < FEWEST_TEXTS:
            raise ReferenceUnusable(f"it has {len(texts)} texts; at least {FEWEST_TEXTS} are needed")
        return InputReference(self.embedder.embed(texts))

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.to_thread(self.embedder.embed, texts)


def reference_texts(splits: Sequence[pl.DataFrame], *, limit: int) -> list[str]:
    """Return what the users ask in both splits, at most ``limit``; nobody asks what was made of documents or
    replayed from general data.

    Rows are taken by ``example_id``: digits of a hash, so those first in its order are a random sample, and
    always the same one.
    """
    answers = [_answers(split).select("example_id", "messages") for split in splits]
    rows = pl.concat(answers).sort("example_id")
    return [asked(messages) for messages in rows["messages"].head(limit).to_list()]


def _answers(split: pl.DataFrame) -> pl.DataFrame:
    # Versions made before examples bore a format hold answers alone.
    return (
        split.filter(pl.col("format") == ExampleFormat.ANSWER.value) if "format" in split.columns else split
    )


def asked(messages: Sequence[Any]) -> str:
    """Return the last user message of a conversation: structs or ``ChatMessage``."""
    for message in reversed(messages):
        role, content = (
            (message["role"], message["content"])
            if isinstance(message, dict)
            else (message.role, message.content)
        )
        if role == "user":
            return str(content)
    return ""
