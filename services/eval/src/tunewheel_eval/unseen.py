"""Finds the held-out rows of another version that neither a run nor the champion trained on.

A version never trains on what it or an earlier version held out. But a later version may hold out what an
earlier one trained on: a customer whose rows trained is held out once these rows resemble those of a held-out
customer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import polars as pl
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_rows
from tunewheel_eval.clusters import of_examples

TRAINED_ON = "trained on by the run or the champion"
"""The reason in ``Scorecard.left_out``."""


async def unseen(
    store: ObjectStore, examples: Sequence[ChatExample], *, own: DatasetManifest, champion: str | None
) -> tuple[ChatExample, ...]:
    """Return the ``examples`` that neither a run on the version ``own`` nor the champion, whose version is
    ``champion``, trained on. What is one observation with such an example is left out with it. Raises
    InvalidEvent: the training rows of ``own`` cannot be read."""
    trained = await _trained(store, own.train)
    manifest = await store.read(f"datasets/{champion}/manifest.json") if champion else None
    if manifest is not None:
        with contextlib.suppress(InvalidEvent):  # rows that were erased: seen ones favour the champion
            trained |= await _trained(store, decode_data(DatasetManifest, manifest).train)
    clusters = (await asyncio.to_thread(of_examples, examples)).tolist() if examples else []
    seen = {
        cluster
        for cluster, one in zip(clusters, examples, strict=True)
        if not trained.isdisjoint((one.group, one.example_id, *one.record_ids, _question(one)))
    }
    return tuple(one for cluster, one in zip(clusters, examples, strict=True) if cluster not in seen)


async def _trained(store: ObjectStore, ref: ArtifactRef) -> set[str]:
    """Return the customers, examples, records and questions of training rows."""
    frame = await read_rows(store, ref, "dataset.train", why=" to leave out what the run trained on")
    return await asyncio.to_thread(_names, frame)


def _names(frame: pl.DataFrame) -> set[str]:
    rows = (ChatExample.model_validate(row) for row in frame.iter_rows(named=True))
    return {name for one in rows for name in (one.group, one.example_id, *one.record_ids, _question(one))}


def _question(example: ChatExample) -> str:
    """Return the question and its history, without letter case and line breaks."""
    asked = (turn.content for turn in example.messages[:-1] if turn.role != "system")
    return " ".join(" ".join(asked).casefold().split())
