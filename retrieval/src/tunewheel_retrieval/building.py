"""Builds an index version from documents. Unchanged passages are reused from the previous version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from typing import NamedTuple

import numpy as np
import polars as pl
from safetensors.numpy import save
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.index import Floors, IndexCounts, IndexManifest
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_embedding.embedders import PROBE, Embedder
from tunewheel_embedding.errors import EmbeddingRefused
from tunewheel_embedding.static import Vectors

from tunewheel_retrieval.floors import floors_of, general_prompts
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import DOCUMENTS, PASSAGES, Index
from tunewheel_retrieval.passages import estimated_sizes, estimated_tokens, passages_of
from tunewheel_retrieval.sections import Section
from tunewheel_retrieval.words import Postings

FORMAT = 1
"""The format of the files. Raise it when the same documents must give a version with another name."""
MAX_PASSAGES = 200_000
EMPTY, TOO_MANY, REFUSED = "empty", "too_many_passages", "refused_by_embedder"
NOT_ON_THE_LOG = "not_on_the_log"
MAY_PASS = frozenset({TOO_MANY, REFUSED, NOT_ON_THE_LOG})
"""Reasons to leave out a document that do not lie in the document. A later build may include it."""
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


@dataclass(frozen=True)
class IndexFiles:
    """The files of a build, not yet stored."""

    index_id: str
    project: str
    config_sha256: str
    embedding: str
    dimensions: int
    passages: bytes
    vectors: bytes
    lexical: bytes
    documents: bytes
    counts: IndexCounts
    floors: Floors | None = None
    is_restricted: bool = False
    """Whether not every caller may see every document."""

    def by_name(self) -> dict[str, bytes]:
        """Return the files by their names in the version's folder. A name holds digits of the file's hash, so
        that no file is overwritten by another machine, which may round a vector differently."""
        named = {
            "passages": (self.passages, "parquet"),
            "vectors": (self.vectors, "safetensors"),
            "lexical": (self.lexical, "safetensors"),
            "documents": (self.documents, "parquet"),
        }
        return {
            f"{name}-{content_sha256(data)[:12]}.{ending}": data for name, (data, ending) in named.items()
        }

    def manifest(self, refs: Mapping[str, ArtifactRef]) -> IndexManifest:
        """Return the manifest of the stored files, given by their names (``by_name``)."""
        passages, vectors, lexical, documents = (refs[name] for name in self.by_name())
        return IndexManifest(
            index_id=self.index_id,
            project=self.project,
            config_sha256=self.config_sha256,
            embedding=self.embedding,
            dimensions=self.dimensions,
            passages=passages,
            vectors=vectors,
            # Earlier releases know no groups, and refuse a version that names more than one file here.
            lexical=(lexical, documents) if self.is_restricted else (lexical,),
            documents=documents,
            counts=self.counts,
            floors=self.floors,
        )


def config_sha256_of(spec: RetrievalSpec, pii: PiiPolicy, embedding: str, *, secret: str = "") -> str:
    """Return a hash of everything except the documents that determines an index. ``secret``: of
    pseudonyms."""
    keyed = content_sha256(secret.encode())[:12] if secret and pii.action == "pseudonymise" else None
    return content_sha256(
        {
            "format": FORMAT,
            "spec": spec.indexed,
            "pii": pii.model_dump(mode="json") | {"found": [] if pii.action == "keep" else pii.wanted},
            "embedding": embedding,
            "keyed": keyed,
        }
        | ({} if spec.floor == "none" else {"general": general_prompts()})
    )


def index_id_of(config_sha256: str, records: Mapping[str, str], left_out: Collection[str] = ()) -> str:
    """Return the name of the version that is made of ``records``, given by document.

    ``left_out``: the documents that the version lacks for a reason in ``MAY_PASS``; with them it would be
    another version. They enter the name even if there are none: names of an earlier release did not depend on
    them, and a version with such a name may lack any document.
    """
    content = {"config": config_sha256, "documents": sorted(records.items()), "left_out": sorted(left_out)}
    return content_id("ix", content)


def build(
    documents: Sequence[Document],
    embedder: Embedder,
    spec: RetrievalSpec,
    previous: Index | None = None,
    *,
    project: str,
    config_sha256: str,
    max_passages: int = MAX_PASSAGES,
) -> IndexFiles:
    """Return the files of a version of ``documents``, which holds each document once.

    ``previous`` has the same configuration, or is None. It provides the passages of documents without
    sections, and the vectors and postings of all unchanged passages.

    A document is left out entirely if the embedder refuses one of its passages.

    Raises:
        ValueError: a document without sections is not in ``previous``.
        EmbeddingRefused: the embedder refuses every text.
    """
    rows: list[Passage] = []
    told: list[_Told] = []
    before = _Taken(previous)
    for document in sorted(documents, key=lambda one: one.document_id):
        title, found, reason = before.of(document) if document.sections is None else _cut(document, spec)
        groups = document.allowed_groups if document.sections is not None else before.groups_of(document)
        if not reason and len(rows) + len(found) > max_passages:
            found, reason = [], TOO_MANY
        rows += found
        named = (document.document_id, document.record_id, title, document.published_at)
        told.append(_Told(*named, len(found), reason, None if groups is None else list(groups)))
    vectors = _vectors(rows, embedder, previous)
    is_refused = np.isnan(vectors).any(axis=1)
    if is_refused.any():
        refused = {rows[at].document_id for at in np.flatnonzero(is_refused)}
        stays = [row.document_id not in refused for row in rows]
        rows, vectors = [row for row, stay in zip(rows, stays, strict=True) if stay], vectors[stays]
        told = [
            one._replace(passages=0, left_out=REFUSED) if one.document_id in refused else one for one in told
        ]
    return _files(
        rows,
        vectors,
        told,
        previous,
        _general(embedder, previous) if spec.floor == "calibrated" else None,
        project=project,
        config_sha256=config_sha256,
        embedding=embedder.name,
        dimensions=embedder.dimensions,
    )


def without(previous: Index, document_ids: Collection[str]) -> IndexFiles:
    """Return the files of ``previous`` without some documents. They equal a ``build`` of the other documents,
    but nothing is embedded."""
    stays = [row.document_id not in document_ids for row in previous.rows]
    rows = [row for row, stay in zip(previous.rows, stays, strict=True) if stay]
    told = [_Told(*row) for row in previous.documents.select(list(DOCUMENTS)).iter_rows()]
    left = [one for one in told if one.document_id not in document_ids]
    manifest = previous.manifest
    files = _files(
        rows,
        previous.vectors[stays].astype(np.float16),
        left,
        previous,
        previous.general,
        project=manifest.project,
        config_sha256=manifest.config_sha256,
        embedding=manifest.embedding,
        dimensions=manifest.dimensions,
    )
    return files if len(left) < len(told) else replace(files, index_id=manifest.index_id)


class _Told(NamedTuple):
    """A row of the table of documents, with the columns ``DOCUMENTS``."""

    document_id: str
    record_id: str
    title: str
    published_at: datetime | None
    passages: int
    left_out: str | None
    allowed_groups: list[str] | None = None


def _files(
    rows: Sequence[Passage],
    vectors: np.ndarray,
    told: Sequence[_Told],
    previous: Index | None,
    general: np.ndarray | None,
    *,
    project: str,
    config_sha256: str,
    embedding: str,
    dimensions: int,
) -> IndexFiles:
    reasons = Counter(one.left_out for one in told if one.left_out)
    records = {one.document_id: one.record_id for one in told}
    left_out = [one.document_id for one in told if one.left_out in MAY_PASS]
    counts = IndexCounts(
        documents=sum(1 for one in told if one.passages),
        passages=len(rows),
        tokens=sum(row.tokens for row in rows),
        left_out=dict(sorted(reasons.items())),
    )
    postings = _postings(rows, previous)
    measured = {} if general is None else {"general": general.astype(np.float16)}
    return IndexFiles(
        index_id=index_id_of(config_sha256, records, left_out),
        project=project,
        config_sha256=config_sha256,
        embedding=embedding,
        dimensions=dimensions,
        passages=_parquet(pl.DataFrame([_fields(row) for row in rows], schema=PASSAGES, orient="row")),
        vectors=save({"vectors": vectors} | measured),
        lexical=postings.to_bytes(),
        documents=_parquet(_documents(told)),
        counts=counts,
        floors=None if general is None else floors_of(postings, vectors, general),
        is_restricted=any(one.allowed_groups is not None for one in told),
    )


def _documents(told: Sequence[_Told]) -> pl.DataFrame:
    """Return the table of documents. Without restricted documents it is as earlier releases wrote it."""
    table = pl.DataFrame(told, schema=DOCUMENTS, orient="row")
    return table if table["allowed_groups"].is_not_null().any() else table.drop("allowed_groups")


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


class _Taken:
    """Looks up documents in the previous version."""

    def __init__(self, previous: Index | None) -> None:
        self._documents: dict[str, tuple[str, str, str | None]] = {}
        self._passages: dict[str, list[Passage]] = {}
        self._groups = {} if previous is None else previous.groups
        if previous is None:
            return
        columns = ("document_id", "record_id", "title", "left_out")
        for document_id, record_id, title, left_out in previous.documents.select(columns).iter_rows():
            self._documents[document_id] = (record_id, title, left_out)
        for passage in previous.rows:
            self._passages.setdefault(passage.document_id, []).append(passage)

    def groups_of(self, document: Document) -> tuple[str, ...] | None:
        return self._groups.get(document.document_id)

    def of(self, document: Document) -> Cut:
        record_id, title, left_out = self._documents.get(document.document_id, (None, "", None))
        if record_id != document.record_id:
            raise ValueError(f"{document.document_id} has no sections, and is not in the previous version")
        return title, self._passages.get(document.document_id, []), left_out


def _split(rows: Sequence[Passage], previous: Index | None) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the pairs (row in ``previous``, row here) of unchanged passages, and the rows of the others."""
    before = {} if previous is None else {row.passage_id: at for at, row in enumerate(previous.rows)}
    kept = [(before[row.passage_id], at) for at, row in enumerate(rows) if row.passage_id in before]
    return kept, [at for at, row in enumerate(rows) if row.passage_id not in before]


def _vectors(rows: Sequence[Passage], embedder: Embedder, previous: Index | None) -> np.ndarray:
    """Return the vectors of ``rows``, (passages, dimensions) in float16; NaN for refused passages."""
    kept, fresh = _split(rows, previous)
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


def _postings(rows: Sequence[Passage], previous: Index | None) -> Postings:
    kept, fresh = _split(rows, previous)
    texts = [rows[at].searched for at in fresh]
    return Postings.merged(previous.postings if previous else None, kept, fresh, texts)


def _fields(passage: Passage) -> tuple[object, ...]:
    return tuple(getattr(passage, name) for name in PASSAGES)


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()
