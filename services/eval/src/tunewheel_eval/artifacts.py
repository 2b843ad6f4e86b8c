"""Downloads the files that an evaluation needs from the object store, and stores its measurements."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, first_complaint
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.generations import MARK, Generation, read_generations
from tunewheel_contracts.formats.regression_items import RegressionItem, parse_items, read_items
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.identity import canonical_json, content_id
from tunewheel_outputs.terms import terms_of
from tunewheel_runtime.store import ArtifactConflict, ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.measurement import Header, Measurement, Row, read_measurement

MOST_FILES = 40
"""The most stored measurements of one model that are read: a base may have years of them."""


async def read_rows(store: ObjectStore, ref: ArtifactRef, field: str, *, why: str = "") -> pl.DataFrame:
    """Download a Parquet file. Raises InvalidEvent, which names ``field`` and ``why`` the file is needed, if
    the rows are missing or damaged."""
    try:
        return pl.read_parquet(io.BytesIO(await store.get(ref)))
    except (ArtifactMissing, CorruptArtifact, pl.exceptions.PolarsError) as error:
        raise InvalidEvent(field=field, reason=f"cannot be read{why}: {error}") from error


async def read_holdout(store: ObjectStore, ref: ArtifactRef) -> tuple[ChatExample, ...]:
    """Download and read ``holdout.parquet``. Raises InvalidEvent if it does not have the declared format."""
    frame = await read_rows(store, ref, "dataset.holdout")
    try:
        examples = tuple(ChatExample.model_validate(row) for row in frame.iter_rows(named=True))
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidEvent(field=f"dataset.holdout.{field}", reason=reason) from error
    if not examples:
        reason = "has no examples to judge by; raise spec.dataset.holdout_fraction or add examples"
        raise InvalidEvent(field="dataset.holdout", reason=reason)
    return examples


async def read_terms(store: ObjectStore, ref: ArtifactRef) -> frozenset[str]:
    """Download ``train.parquet`` and return every term in it: the terms that a model may have learnt. Raises
    InvalidEvent: the rows are missing, or do not have the declared format."""
    try:
        frame = pl.read_parquet(io.BytesIO(await store.get(ref)), columns=["messages"])
        contents = frame["messages"].explode().struct.field("content").unique()
    except (ArtifactMissing, CorruptArtifact, pl.exceptions.PolarsError) as error:
        reason = f"cannot be read for the metric that needs its terms: {error}"
        raise InvalidEvent(field="dataset.train", reason=reason) from error
    return frozenset(await asyncio.to_thread(terms_of, contents))


async def fetch_candidate(store: ObjectStore, adapter: AdapterRef, destination: Path) -> Path:
    """Download and verify the candidate's files. Raises UnfitCandidate: files are missing, damaged or
    pickled, or a file that the method needs is not there."""
    if (reason := adapter.unloadable) is not None:
        raise UnfitCandidate(field="adapter.files", reason=reason)
    try:
        return await fetch_model(store, adapter, destination)
    except (ArtifactMissing, CorruptArtifact) as error:
        raise UnfitCandidate(field="adapter.files", reason=f"{error}; train again") from error


async def fetch_champion(store: ObjectStore, adapter: AdapterRef, destination: Path) -> Path:
    """Download and verify the champion's files. Raises InvalidEvent if they are missing."""
    try:
        return await fetch_model(store, adapter, destination)
    except (ArtifactMissing, CorruptArtifact) as error:
        reason = f"of {adapter.model_id}, which is in production, cannot be used: {error}; restore them"
        raise InvalidEvent(field="champion.files", reason=reason) from error


async def fetch_model(store: ObjectStore, adapter: AdapterRef, destination: Path) -> Path:
    """Download and verify the files of an adapter or a whole model; see ``ObjectStore.fetch_directory``."""
    return await store.fetch_directory(adapter.files, adapter.path, destination)


async def keep_measurement(store: ObjectStore, measurement: Measurement, *, dataset_id: str) -> None:
    """Store a complete measurement where later evaluations of the same model look for it."""
    # On a conflict another worker stored the same measurement, maybe with other last bits: keep the first.
    with contextlib.suppress(ArtifactConflict):
        await store.put(*measurement_file(measurement, dataset_id))


def measurement_file(measurement: Measurement, dataset_id: str) -> tuple[str, bytes]:
    """Return the path and the content of a measurement to store. The path depends on the measured items."""
    cause: dict[str, Any] = {
        "header": measurement.header.model_dump(mode="json"),
        "items": sorted(measurement.rows),
    }
    folder = measurements_of(measurement.header.model_key, dataset_id)
    return f"{folder}/{content_id('rows', cause)}.jsonl", measurement.to_lines().encode()


async def read_written(store: ObjectStore, scorecard_path: str) -> tuple[Generation, ...]:
    """Return the outputs of a scorecard's contestants. An erasure may have renamed the file."""
    begin = f"{scorecard_path.removesuffix('.json')}{MARK}"
    paths = [path for path in await store.list("scorecards") if path.startswith(begin)]
    return read_generations(b"".join([await store.read(path) or b"" for path in paths]))


async def known_rows(
    store: ObjectStore, header: Header, keys: Sequence[str], *, dataset_ids: Sequence[str]
) -> Measurement:
    """Return stored rows of a model for the items ``keys``, from evaluations on any dataset version.

    Measurements on the versions ``dataset_ids`` are read first, then the newest. At most ``MOST_FILES`` are
    read.
    """
    rows: dict[str, Row] = {}
    for path in (await _kept(store, header.model_key, dataset_ids))[:MOST_FILES]:
        missing = [key for key in keys if key not in rows]
        if not missing:
            break
        found = read_measurement((await store.read(path) or b"").decode("utf-8", "replace"))
        if found is not None and found.matches(header):
            rows |= found.only(missing).rows
    return Measurement(header=header, rows=rows).only(keys)


async def _kept(store: ObjectStore, model_key: str, dataset_ids: Sequence[str]) -> list[str]:
    written = await store.written(f"measurements/{model_key}")
    newest = sorted(written, key=lambda path: written[path], reverse=True)
    likely = [measurements_of(model_key, one) + "/" for one in dataset_ids]
    # sorted() keeps the order of equals
    return sorted(newest, key=lambda path: not any(path.startswith(folder) for folder in likely))


def measurements_of(model_key: str, dataset_id: str) -> str:
    """Return the folder of a model's measurements on a dataset version."""
    return f"measurements/{model_key}/{dataset_id}"


@dataclass(frozen=True)
class StoredFile:
    """A stored file, and the part of it that stays."""

    path: str
    taken: int
    """The number of outputs that are deleted."""
    left: tuple[str, bytes] | None
    """The new path and content; None: nothing stays."""

    async def rewrite(self, store: ObjectStore) -> None:
        """Write the part that stays, then delete the old file. A repetition finds one of the two."""
        if self.left is not None and self.left[0] == self.path:
            await store.replace(*self.left)
            return
        if self.left is not None:
            await store.first(*self.left)
        await store.delete([self.path])


class RegressionSet:
    """The general regression set that new plans name, stored under the hash of its content.

    A plan names its set. So a run that was planned before an upgrade, or before the operator chose another
    set, is judged by the set of its plan.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._items: tuple[RegressionItem, ...] = ()
        self._ref: ArtifactRef | None = None

    @property
    def ref(self) -> ArtifactRef:
        assert self._ref is not None, "take() comes first"
        return self._ref

    async def take(self, path: Path | None) -> None:
        """Read the set at ``path``, by default the one that comes with Tunewheel, and store it.

        Raises:
            ValueError: it is malformed.
            TransientError: the store cannot be reached.
        """
        self._items = await asyncio.to_thread(read_items, path)
        lines = [canonical_json(item.model_dump(mode="json")) + b"\n" for item in self._items]
        data = b"".join(lines)
        self._ref = await self._store.put(f"regression/{content_id('set', data)}.jsonl", data)

    async def items(self, ref: ArtifactRef | None) -> tuple[RegressionItem, ...]:
        """Return the items of a plan's set. ``ref`` is None in plans of an earlier release: use the set of
        ``take``. Raises InvalidEvent: the set is gone from the store."""
        if ref is None or ref == self._ref:
            return self._items
        try:
            return parse_items((await self._store.get(ref)).decode(), name=ref.path)
        except (ArtifactMissing, CorruptArtifact) as error:
            raise InvalidEvent(
                field="plan.regression", reason=f"cannot be used: {error}; restore it"
            ) from error
