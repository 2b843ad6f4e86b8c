"""Builds an index version from documents. Unchanged passages are reused from the previous version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import numpy as np
from tunewheel_contracts.formats.index import InjectedPassage
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_id
from tunewheel_embedding.embedders import PROBE, Embedder
from tunewheel_embedding.errors import EmbeddingRefused
from tunewheel_embedding.static import Vectors

from tunewheel_retrieval.files import (
    EMPTY,
    INJECTION,
    REFUSED,
    TOO_MANY,
    DocumentRow,
    IndexFiles,
    files_from,
    unchanged,
)
from tunewheel_retrieval.floors import general_prompts
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import LATER, PASSAGES, Index
from tunewheel_retrieval.injections import injected_passages
from tunewheel_retrieval.passages import estimated_sizes, estimated_tokens, passages_of
from tunewheel_retrieval.sections import Section

Facts = tuple[list[str] | None, str | None, str | None]
"""The columns ``LATER`` of a document."""
MAX_PASSAGES = 200_000
EMBEDDED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Document:
    """The current version of a document."""

    document_id: str
    record_id: str
    title: str = ""
    sections: Sequence[Section] | None = None
    """The redacted sections. None: reuse the passages that the previous index version has for this record."""
    left_out: str | None = None
    """Why the document gets no passages; None: it gets them."""
    published_at: datetime | None = None
    """Goes into the table of documents."""
    allowed_groups: tuple[str, ...] | None = None
    """The groups whose callers may see its passages; None: every caller may. Without sections: as in the
    previous index version."""
    trust: str = "unverified"
    origin: str = ""
    """The name of the caller who published it, where a service identified one."""


def build(
    documents: Sequence[Document],
    embedder: Embedder,
    spec: RetrievalSpec,
    previous: Index | None = None,
    *,
    project: str,
    config_sha256: str,
    max_passages: int = MAX_PASSAGES,
    searches: bool = True,
    released: Collection[str] = (),
) -> IndexFiles:
    """Return the files of a version of ``documents``, which holds each document once.

    ``previous`` has the same configuration, or is None. It provides the passages of documents without
    sections, and the vectors and postings of all unchanged passages.

    A document is left out entirely if the embedder refuses one of its passages. If ``searches``, passages
    that address the model are left out, unless ``released`` names their record.

    Raises:
        ValueError: a document without sections is not in ``previous``.
        EmbeddingRefused: the embedder refuses every text.
    """
    before = _Taken(previous)
    ordered = sorted(documents, key=lambda one: one.document_id)
    cuts = [before.of(one) if one.sections is None else _cut(one, spec) for one in ordered]
    fresh = [(one, cut[1]) for one, cut in zip(ordered, cuts, strict=True) if one.sections is not None]
    reused = {one.document_id for one in ordered if one.sections is None}
    injections = before.injections_of(reused) | (_searched(fresh) if searches else {})
    rows: list[Passage] = []
    table: list[DocumentRow] = []
    waiting: list[InjectedPassage] = []
    held_back = 0
    for document, (title, found, reason) in zip(ordered, cuts, strict=True):
        known = before.facts_of(document) if document.sections is None else _facts_of(document)
        if not reason and len(rows) + held_back + len(found) > max_passages:
            found, reason = [], TOO_MANY
        is_released = document.record_id in released
        flagged = [injections[one.passage_id] for one in found if one.passage_id in injections]
        waiting += [one.model_copy(update={"released": is_released}) for one in flagged]
        shown = [one for one in found if is_released or one.passage_id not in injections]
        if found and not shown:
            reason = INJECTION
        rows += shown
        held_back += len(found) - len(shown)
        named = (document.document_id, document.record_id, title, document.published_at)
        table.append(DocumentRow(*named, len(shown), reason, *known))
    vectors = _vectors(rows, embedder, previous)
    is_refused = np.isnan(vectors).any(axis=1)
    if is_refused.any():
        refused = {rows[at].document_id for at in np.flatnonzero(is_refused)}
        stays = [row.document_id not in refused for row in rows]
        rows, vectors = [row for row, stay in zip(rows, stays, strict=True) if stay], vectors[stays]
        waiting = [one for one in waiting if one.document_id not in refused]
        table = [
            one._replace(passages=0, left_out=REFUSED) if one.document_id in refused else one for one in table
        ]
    return files_from(
        rows,
        vectors,
        table,
        waiting,
        previous,
        _general(embedder, previous) if spec.floor == "calibrated" else None,
        project=project,
        config_sha256=config_sha256,
        embedding=embedder.name,
        dimensions=embedder.dimensions,
    )


Cut = tuple[str, list[Passage], str | None]
"""A document's title, its passages, and the reason if it has none."""


def _cut(document: Document, spec: RetrievalSpec) -> Cut:
    if document.left_out:
        return document.title, [], document.left_out
    return document.title, list(_passages(document, spec)), None if document.sections else EMPTY


def _passages(document: Document, spec: RetrievalSpec) -> Iterator[Passage]:
    seen: Counter[str] = Counter()
    order = 0
    for section in document.sections or ():
        texts = passages_of(section, estimated_sizes, max_tokens=spec.passage_tokens, overlap=spec.overlap)
        for text in texts:
            content = [document.document_id, document.title, section.heading, text]
            name = content_id("ps", content)
            seen[name] += 1
            if seen[name] > 1:  # the same text occurs twice below one heading
                name = content_id("ps", [*content, seen[name]])
            yield Passage(
                passage_id=name,
                document_id=document.document_id,
                record_id=document.record_id,
                title=document.title,
                heading=section.heading,
                text=text,
                tokens=estimated_tokens(text),
                order=order,
            )
            order += 1


def _searched(fresh: Sequence[tuple[Document, Sequence[Passage]]]) -> dict[str, InjectedPassage]:
    """Return the passages of documents that address the model, by ``passage_id``."""
    words = injected_passages(list(chain.from_iterable(passages for _, passages in fresh)))
    return {
        passage.passage_id: InjectedPassage(
            **{name: getattr(passage, name) for name in PASSAGES},
            evidence=words[passage.passage_id], trust=document.trust, origin=document.origin,
        )
        for document, passages in fresh
        for passage in passages
        if passage.passage_id in words
    }  # fmt: skip


def _facts_of(document: Document) -> Facts:
    groups = document.allowed_groups
    return None if groups is None else list(groups), document.trust, document.origin


class _Taken:
    """Looks up documents in the previous version."""

    def __init__(self, previous: Index | None) -> None:
        self._documents: dict[str, tuple[str, str, str | None]] = {}
        self._passages: dict[str, list[Passage]] = {}
        self._facts: dict[str, Facts] = {}
        self._injections = () if previous is None else previous.injections
        if previous is None:
            return
        columns = ("document_id", "record_id", "title", "left_out", *LATER)
        for document_id, record_id, title, left_out, *facts in previous.documents.select(columns).iter_rows():
            self._documents[document_id] = (record_id, title, None if left_out == INJECTION else left_out)
            self._facts[document_id] = (facts[0], facts[1], facts[2])
        for passage in previous.rows:
            self._passages.setdefault(passage.document_id, []).append(passage)
        for one in previous.waiting:
            passage = Passage(*(getattr(one, name) for name in PASSAGES))
            self._passages.setdefault(one.document_id, []).append(passage)

    def injections_of(self, document_ids: Collection[str]) -> dict[str, InjectedPassage]:
        return {one.passage_id: one for one in self._injections if one.document_id in document_ids}

    def facts_of(self, document: Document) -> Facts:
        return self._facts[document.document_id]

    def of(self, document: Document) -> Cut:
        record_id, title, left_out = self._documents.get(document.document_id, (None, "", None))
        if record_id != document.record_id:
            raise ValueError(f"{document.document_id} has no sections, and is not in the previous version")
        passages = self._passages.get(document.document_id, [])
        return title, sorted(passages, key=lambda one: one.order), left_out


def _vectors(rows: Sequence[Passage], embedder: Embedder, previous: Index | None) -> np.ndarray:
    """Return the vectors of ``rows``, (passages, dimensions) in float16; NaN for refused passages."""
    kept, fresh = unchanged(rows, previous)
    vectors = np.zeros((len(rows), embedder.dimensions), np.float16)
    if previous is not None and kept:
        vectors[[new for _, new in kept]] = previous.vectors[[old for old, _ in kept]].astype(np.float16)
    for start in range(0, len(fresh), EMBEDDED_AT_ONCE):
        some = fresh[start : start + EMBEDDED_AT_ONCE]
        vectors[some] = _units([rows[at].searched for at in some], embedder).astype(np.float16)
    return vectors


def _general(embedder: Embedder, previous: Index | None) -> np.ndarray:
    """Return the vectors of the general prompts, (prompts, dimensions)."""
    if previous is not None and previous.general is not None:
        return previous.general
    units = _units(general_prompts(), embedder)
    return np.nan_to_num(units).astype(np.float16).astype(np.float32)


def _units(texts: Sequence[str], embedder: Embedder) -> Vectors:
    """Return (texts, dimensions), with NaN for refused texts. A refused batch is halved and tried again,
    until the refused texts are known."""
    try:
        return embedder.units(texts)
    except EmbeddingRefused as error:
        if not error.may_be_one_text:
            raise
        if len(texts) == 1:
            embedder.units([PROBE])
            return np.full((1, embedder.dimensions), np.nan)
    half = len(texts) // 2
    return np.concatenate([_units(some, embedder) for some in (texts[:half], texts[half:])])
