"""Opens an index version from its files, and searches it by words and by vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import load
from tunewheel_contracts.errors import FieldError, InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest, InjectedPassage, InjectedPassages
from tunewheel_contracts.identity import content_sha256
from tunewheel_embedding.static import Vectors

from tunewheel_retrieval.floors import fit_of
from tunewheel_retrieval.fusion import fused
from tunewheel_retrieval.hits import Hit, Passage
from tunewheel_retrieval.words import Postings, WordSearch, best_of

DEPTH = 50
"""How many rows of each ranking are fused. 20 would find nearly the same."""
PASSAGES = {
    "passage_id": pl.String,
    "document_id": pl.String,
    "record_id": pl.String,
    "title": pl.String,
    "heading": pl.String,
    "text": pl.String,
    "tokens": pl.Int32,
    "order": pl.Int32,
}
DOCUMENTS = {
    "document_id": pl.String,
    "record_id": pl.String,
    "title": pl.String,
    "published_at": pl.Datetime("us", "UTC"),
    "passages": pl.Int32,
    "left_out": pl.String,
    "allowed_groups": pl.List(pl.String),
    "trust": pl.String,
    "origin": pl.String,
}
LATER = ("allowed_groups", "trust", "origin")
"""Columns of ``DOCUMENTS`` that a version may lack: each came with a later release. Without
``allowed_groups`` every caller may see every document."""
Files = Mapping[str, bytes] | Callable[[ArtifactRef], bytes]
"""The files by path, or a function that reads one."""


class BrokenIndex(FieldError):
    """The files of an index version do not fit its manifest. ``field`` is the manifest's field."""


@dataclass(frozen=True)
class Index:
    """A version in memory. It is immutable, so any thread may search it, and no search reads a file."""

    manifest: IndexManifest
    rows: tuple[Passage, ...]
    vectors: npt.NDArray[np.float32]
    """(rows, dimensions), unit length; zeros if no token of a passage is known."""
    postings: Postings
    documents: pl.DataFrame
    """The table of documents, with the columns ``DOCUMENTS``."""
    _words: WordSearch
    injections: tuple[InjectedPassage, ...] = ()
    """The passages that address the model; no search finds those that are not released."""
    general: npt.NDArray[np.float32] | None = None
    """The vectors of the general prompts behind ``manifest.floors``, (prompts, dimensions)."""

    @classmethod
    def open(cls, manifest: IndexManifest, files: Files) -> Index:
        """Read a version's files and check them against ``manifest``.

        Raises:
            BrokenIndex: a file is missing, has another hash, or does not fit the other files.
        """
        passages = _frame(_read(files, "passages", manifest.passages), "passages", PASSAGES)
        needed = {name: kind for name, kind in DOCUMENTS.items() if name not in LATER}
        documents = _frame(_read(files, "documents", manifest.documents), "documents", needed)
        lacking = [name for name in LATER if name not in documents.columns]
        documents = documents.with_columns(pl.lit(None, DOCUMENTS[name]).alias(name) for name in lacking)
        arrays = _arrays(_read(files, "vectors", manifest.vectors))
        vectors = arrays["vectors"]
        if vectors.shape != (passages.height, manifest.dimensions):
            reason = f"has the shape {vectors.shape}, not {(passages.height, manifest.dimensions)}"
            raise BrokenIndex("vectors", reason)
        postings = _postings(files, manifest)
        if len(postings.lengths) != passages.height:
            reason = f"counts the words of {len(postings.lengths)} passages, not of {passages.height}"
            raise BrokenIndex("lexical", reason)
        rows = tuple(Passage(*row) for row in passages.select(list(PASSAGES)).iter_rows())
        words, injections = WordSearch(postings), _injections(files, manifest)
        return cls(manifest, rows, vectors, postings, documents, words, injections, arrays.get("general"))

    @property
    def waiting(self) -> list[InjectedPassage]:
        """The passages that address the model and wait for a person."""
        return [one for one in self.injections if not one.released]

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """By document, the groups whose callers may see its passages. Every caller may see the others."""
        rows = self.documents.select("document_id", "allowed_groups").drop_nulls().iter_rows()
        return {document_id: tuple(groups) for document_id, groups in rows}

    def hidden(self, groups: Collection[str]) -> npt.NDArray[np.int64]:
        """Return the rows that a caller with ``groups`` may not see, (hidden rows,)."""
        return np.concatenate(
            [np.zeros(0, np.int64)]
            + [rows for allowed, rows in self._rows_of_groups if not allowed.intersection(groups)]
        )

    @cached_property
    def _rows_of_groups(self) -> list[tuple[frozenset[str], npt.NDArray[np.int64]]]:
        rows: dict[frozenset[str], list[int]] = {}
        for at, row in enumerate(self.rows):
            if (groups := self.groups.get(row.document_id)) is not None:
                rows.setdefault(frozenset(groups), []).append(at)
        return [(groups, np.array(found, np.int64)) for groups, found in rows.items()]

    def search(
        self, question: str, vector: Vectors | None, k: int, groups: Collection[str] = ()
    ) -> tuple[Hit, ...]:
        """Return the ``k`` best passages for ``question`` that a caller with ``groups`` may see, the best
        first.

        ``vector``: the question's vector, (dimensions,), by the embedder that ``manifest.embedding`` names.
        None: search by words alone. A passage is found only if it shares a word with the question or its
        cosine with the question is positive.
        """
        hidden = self.hidden(groups)
        words = self._words.scores(question)
        words[hidden] = 0
        rankings = [best_of(words, max(k, DEPTH))]
        # vecdot runs in this thread; BLAS would use several threads and wait for the slowest of them
        cosines = None if vector is None else np.vecdot(self.vectors, np.asarray(vector, np.float32))
        fits = None if self.manifest.floors is None else fit_of(self._words, question, cosines)
        if cosines is not None and np.any(cosines):
            seen = np.copy(cosines) if len(hidden) else cosines
            seen[hidden] = 0
            rankings.append(best_of(seen, max(k, DEPTH)))
        return tuple(
            Hit(
                self.rows[one.row],
                one.score,
                one.ranks,
                None if cosines is None else round(float(cosines[one.row]), 4),
                0.0 if fits is None else round(float(fits[one.row]), 4),
                round(float(words[one.row]), 4),
            )
            for one in fused(rankings, limit=k)
        )


def _read(files: Files, field: str, ref: ArtifactRef) -> bytes:
    data = files(ref) if callable(files) else files.get(ref.path)
    if data is None:
        raise BrokenIndex(field, f"names {ref.path}, which is not there")
    if (sha256 := content_sha256(data)) != ref.sha256:
        raise BrokenIndex(field, f"names {ref.path}, which hashes to {sha256}, not to {ref.sha256}")
    return data


def _frame(data: bytes, field: str, columns: Mapping[str, Any]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(BytesIO(data))
    except Exception as error:  # polars raises several kinds
        raise BrokenIndex(field, f"is no Parquet: {error}") from error
    if lacking := [name for name in columns if name not in frame.columns]:
        raise BrokenIndex(field, f"lacks the columns {lacking}")
    return frame


def _arrays(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    try:
        arrays = load(data)
    except Exception as error:  # safetensors raises its own kinds
        raise BrokenIndex("vectors", f"is no file of vectors: {error}") from error
    if "vectors" not in arrays:
        raise BrokenIndex("vectors", "is no file of vectors: it lacks the array 'vectors'")
    for array in arrays.values():
        if array.dtype not in (np.float16, np.float32) or not np.all(np.isfinite(array)):
            raise BrokenIndex("vectors", "holds other than finite float16 or float32")
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _injections(files: Files, manifest: IndexManifest) -> tuple[InjectedPassage, ...]:
    if manifest.injections is None:
        return ()
    try:
        return decode_data(InjectedPassages, _read(files, "injections", manifest.injections)).passages
    except InvalidEvent as error:
        raise BrokenIndex("injections", str(error)) from error


def _postings(files: Files, manifest: IndexManifest) -> Postings:
    if manifest.lexical[1:] not in ((), (manifest.documents,)):
        raise BrokenIndex("lexical", f"names {len(manifest.lexical)} files; this release reads exactly one")
    try:
        return Postings.from_bytes(_read(files, "lexical", manifest.lexical[0]))
    except ValueError as error:
        raise BrokenIndex("lexical", str(error)) from error
