"""The reference for scoring: the questions and terms of the dataset on which the model in production was
trained."""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest, ExampleFormat
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder, Vectors
from tunewheel_outputs.terms import terms_of
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_monitor.coverage import Coverage, Encoding
from tunewheel_monitor.metrics import Metrics

log = structlog.get_logger(__name__)

MOST_BYTES = 1 << 30
"""About how much memory fitted references may take. A reference of 8,000 questions
(``TUNEWHEEL_REFERENCE_TEXTS``) takes 12 MB plus its words, and 1 MB per hundred labels."""
MOST_ENCODED = 4_000
"""Of a reference's questions, at most so many are encoded: 20 s on one core."""
ENCODINGS = "encodings"
"""The folder of a project's newest encoded reference. It is a cache, which every erasure empties."""
ERASING = timedelta(days=1)
"""For so long after an erasure no encoded reference is stored: the version may still have the erased rows."""
RETRY_SECONDS = 30.0
FEWEST_TEXTS = 10
SHORT = 0.01
"""A question that is shorter than all but this share of the dataset's is not compared with them: "hi" or
"thanks" lies far from every question, and says nothing about a topic."""
SHORTEST_WORD = 3
MOST_LABELS = 500
"""A field with more different values is free text."""


class ReferenceUnusable(Exception):
    """The dataset cannot serve as a reference; the message says why."""


UNUSABLE = (
    ReferenceUnusable,
    ArtifactMissing,
    CorruptArtifact,
    InvalidEvent,
    ArithmeticError,
    np.linalg.LinAlgError,
)
"""Errors of a single dataset. They must not stop watching other projects."""


@dataclass(frozen=True)
class Reference:
    """The reference of one dataset version. Two processes that fit the same version may differ in the last
    bits of distances."""

    dataset_id: str
    coverage: Coverage
    terms: frozenset[str]
    """The terms of all rows, case folded. An answer that uses them invents nothing."""
    words: Mapping[str, float]
    """By word: the share of questions that contain it."""
    shortest: int = 0
    """The characters that a question must have to be compared."""
    labels: frozenset[str] = frozenset()
    """The labels of all rows; empty if there are too many different values."""
    encoding: Encoding | None = None
    """None: there is no encoder, or the questions are not encoded yet."""


@dataclass(frozen=True)
class References:
    """Fits references and caches them. An unusable dataset is reported once."""

    store: ObjectStore
    embedder: StaticEmbedder
    limit: int
    metrics: Metrics
    encoder: SentenceEmbedder | None = None
    erasures: Erasures = field(default_factory=Erasures)
    refresh: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
    """Reads the erasures to the end of the log."""
    warn: Callable[[str, str | None], None] = lambda name, text: None
    """``Health.warn``."""
    _fitted: dict[str, Reference | None] = field(default_factory=dict[str, Reference | None])
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _one_encodes: asyncio.Lock = field(default_factory=asyncio.Lock)
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _encoding: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def get(self, dataset_id: str) -> Reference | None:
        """Return the reference of ``dataset_id``; None: it is unusable, and the log says why.

        Raises:
            TransientError: the store cannot be reached.
        """
        async with self._one_at_a_time:
            if dataset_id not in self._fitted:
                self.metrics.add("references.missed")
                try:
                    fitted = await self._fit(dataset_id)
                    self.metrics.add("references.fitted")
                except UNUSABLE as error:
                    log.error("reference_unusable", dataset_id=dataset_id, reason=str(error))
                    fitted = None
                self._make_room(fitted)
                self._fitted[dataset_id] = fitted
                if fitted is not None and self.encoder is not None:
                    task = asyncio.create_task(self._encode(dataset_id, self.encoder))
                    self._encoding.add(task)
                    task.add_done_callback(self._encoding.discard)
            return self._fitted[dataset_id]

    async def close(self) -> None:
        """Stop encoding."""
        for task in self._encoding:
            task.cancel()

    async def encoded(self) -> None:
        """Wait until all references in memory are encoded, as far as possible."""
        await asyncio.gather(*self._encoding)

    async def _encode(self, dataset_id: str, encoder: SentenceEmbedder) -> None:
        """Add the encoding to the reference. It takes seconds, and scoring does not wait for it."""
        warning = f"encoding of {dataset_id}"
        self.warn(warning, f"{dataset_id} is being encoded; until then static vectors alone judge novelty")
        try:
            encoding = await self._read_patiently(dataset_id, encoder)
        finally:
            self.warn(warning, None)
        if encoding is None:
            return
        async with self._one_at_a_time:
            if (fitted := self._fitted.get(dataset_id)) is not None:
                self._make_room(fitted := replace(fitted, encoding=encoding))
                self._fitted[dataset_id] = fitted

    async def _read_patiently(self, dataset_id: str, encoder: SentenceEmbedder) -> Encoding | None:
        """Return the encoding; None: the dataset is unusable, and the log says why."""
        while True:
            try:
                return await self._read_encoding(dataset_id, encoder)
            except TransientError as error:
                log.warning("encoding_waits", dataset_id=dataset_id, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except UNUSABLE as error:
                log.error("encoding_unusable", dataset_id=dataset_id, reason=str(error))
                return None

    async def _read_encoding(self, dataset_id: str, encoder: SentenceEmbedder) -> Encoding:
        """Return the encoding, from the stored vectors if there are any; otherwise store them."""
        erasures = len(self.erasures.by_request())
        manifest, splits = await self._read(dataset_id)
        asking, labels = await asyncio.to_thread(asked_of, splits, min(self.limit, MOST_ENCODED))
        path = f"monitor/{manifest.project}/{ENCODINGS}/{dataset_id}.{encoder.name}.npy"
        async with self._one_encodes:
            vectors = stored_vectors(await self.store.read(path), len(asking))
            if vectors is None:
                vectors = await asyncio.to_thread(encoder.units, asking)
                await self._store(manifest.project, path, vectors, erasures)
            self.metrics.add("references.encoded")
            return Encoding(encoder.name, await asyncio.to_thread(Coverage.fit, vectors, labels))

    async def _store(self, project: str, path: str, vectors: Vectors, erasures: int) -> None:
        """Store the vectors in place of those of other versions, unless an erasure is under way.
        ``erasures``: how many there were when the rows were read."""
        if await self._is_erasing(project, erasures):
            return
        file = io.BytesIO()
        np.save(file, vectors.astype(np.float16), allow_pickle=False)
        await self.store.delete(await self.store.list(f"monitor/{project}/{ENCODINGS}"))
        await self.store.first(path, file.getvalue())
        if await self._is_erasing(project, erasures):  # it may not have found this file
            await self.store.delete([path])

    async def _is_erasing(self, project: str, before: int) -> bool:
        await self.refresh()
        recent = any(datetime.now(UTC) - one.until < ERASING for one in self.erasures.of(project))
        return recent or len(self.erasures.by_request()) > before

    def _make_room(self, fitted: Reference | None) -> None:
        """Drop references at random until ``fitted`` fits into ``MOST_BYTES``. If the least recently used one
        were dropped instead, projects that take turns would find none of theirs."""
        sizes = {name: size_of(one) for name, one in self._fitted.items()}
        while sizes and sum(sizes.values()) + size_of(fitted) > MOST_BYTES:
            dropped = self._random.choice(list(sizes))
            del sizes[dropped], self._fitted[dropped]

    async def _fit(self, dataset_id: str) -> Reference:
        _, splits = await self._read(dataset_id)
        return await asyncio.to_thread(fit, dataset_id, splits, embed=self.embedder.embed, limit=self.limit)

    async def _read(self, dataset_id: str) -> tuple[DatasetManifest, list[bytes]]:
        path = f"datasets/{dataset_id}/manifest.json"
        data = await self.store.read(path)
        if data is None:
            raise ArtifactMissing(
                f"{path} is not in {self.store.url}; set curate's TUNEWHEEL_STORE_URL here too"
            )
        manifest = decode_data(DatasetManifest, data)
        return manifest, [await self.store.get(ref) for ref in (manifest.train, manifest.holdout)]


def size_of(reference: Reference | None) -> int:
    """Return about how many bytes a reference takes; also an unusable one takes some."""
    if reference is None:
        return 1_000
    fitted = [reference.coverage, *([reference.encoding.coverage] if reference.encoding else ())]
    topics = [one.topics for one in fitted if one.topics]
    arrays = [array for one in fitted for array in (one.units, one.cells)]
    arrays += [array for one in topics for array in (one.sums, one.axes.turn)]
    return sum(array.nbytes for array in arrays) + 150 * (len(reference.terms) + len(reference.words))


def fit(
    dataset_id: str, splits: Sequence[bytes], *, embed: Callable[[Sequence[str]], Vectors], limit: int
) -> Reference:
    """Fit a reference to a version's rows (Parquet). It takes 6 s for 8,000 questions: not on the event loop.

    Raises:
        ReferenceUnusable: too few questions.
    """
    rows = pl.concat([pl.read_parquet(io.BytesIO(split)) for split in splits], how="diagonal_relaxed")
    asking = asking_rows(rows, limit=limit)
    questions, labels = questions_of(asking, limit=limit), labels_of(rows)
    if len(questions) < FEWEST_TEXTS:
        raise ReferenceUnusable(f"it has {len(questions)} texts; at least {FEWEST_TEXTS} are needed")
    contents = rows["messages"].explode().struct.field("content").drop_nulls().unique()
    return Reference(
        dataset_id,
        Coverage.fit(embed(questions), asking["label"].fill_null("").to_list() if labels else ()),
        frozenset(terms_of(contents)),
        shares_of_words(questions),
        shortest_of(questions),
        labels,
    )


def asked_of(splits: Sequence[bytes], limit: int) -> tuple[list[str], list[str]]:
    """Return at most ``limit`` of a version's questions, and the label of each if the version has labels."""
    rows = pl.concat([pl.read_parquet(io.BytesIO(split)) for split in splits], how="diagonal_relaxed")
    asking = asking_rows(rows, limit=limit)
    labels = asking["label"].fill_null("").to_list() if labels_of(rows) else []
    return [asked(messages) for messages in asking["messages"].to_list()], labels


def stored_vectors(data: bytes | None, count: int) -> Vectors | None:
    """Return ``count`` stored vectors; None: there are none, or they are damaged."""
    try:
        vectors = np.load(io.BytesIO(data or b""), allow_pickle=False)
    except (EOFError, ValueError):
        return None
    return vectors.astype(np.float64) if vectors.ndim == 2 and len(vectors) == count else None


def labels_of(rows: pl.DataFrame) -> frozenset[str]:
    """Return the labels of ``rows``."""
    labels = rows["label"].drop_nulls().unique() if "label" in rows.columns else ()
    return frozenset(labels) if len(labels) <= MOST_LABELS else frozenset()


def questions_of(rows: pl.DataFrame, *, limit: int) -> list[str]:
    """Return at most ``limit`` users' questions, in the order of ``asking_rows``."""
    return [asked(messages) for messages in asking_rows(rows, limit=limit)["messages"].to_list()]


def asking_rows(rows: pl.DataFrame, *, limit: int) -> pl.DataFrame:
    """Return the rows with users' questions. Rows made of documents, and general data, are left out.

    The first rows by ``example_id`` are taken. Ids are hashes, so this is a random sample that is always the
    same.
    """
    if "format" in rows.columns:  # versions without this column have only answers
        rows = rows.filter(pl.col("format").is_null() | (pl.col("format") == ExampleFormat.ANSWER.value))
    return rows.sort("example_id").head(limit)


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


def shortest_of(questions: Sequence[str]) -> int:
    """Return the characters that a question must have to be compared with ``questions``."""
    return int(np.quantile([len(question) for question in questions], SHORT))


def words_in(text: str) -> set[str]:
    """Return the words of a text that may be published: words of letters only, in lower case."""
    return {word for word in terms_of((text,)) if len(word) >= SHORTEST_WORD and word.isalpha()}


def shares_of_words(texts: Sequence[str]) -> dict[str, float]:
    """Return, for each word, the share of ``texts`` that contain it."""
    counts = Counter(word for text in texts for word in words_in(text))
    return {word: count / len(texts) for word, count in counts.items()}
