"""The files of an index version, not yet stored, and the name of the version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from safetensors.numpy import save
from tunewheel_contracts.fields import ArtifactRef, shared
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.index import (
    Floors,
    IndexCounts,
    IndexManifest,
    InjectedPassage,
    InjectedPassages,
)
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_id, content_sha256

from tunewheel_retrieval.floors import floors_of, general_prompts
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import DOCUMENTS, PASSAGES, Index
from tunewheel_retrieval.injections import FINDER_SHA256
from tunewheel_retrieval.words import Postings

FORMAT = 1
"""The format of the files. Raise it when the same documents must give a version with another name."""
EMPTY, TOO_MANY, REFUSED = "empty", "too_many_passages", "refused_by_embedder"
NOT_ON_THE_LOG, INJECTION = "not_on_the_log", "injection"
MAY_PASS = frozenset({TOO_MANY, REFUSED, NOT_ON_THE_LOG})
"""Reasons to leave out a document that do not lie in the document. A later build may include it."""


class DocumentRow(NamedTuple):
    """A row of the table of documents, with the columns ``DOCUMENTS``."""

    document_id: str
    record_id: str
    title: str
    published_at: datetime | None
    passages: int
    left_out: str | None
    allowed_groups: list[str] | None = None
    trust: str | None = None
    """None, as with ``origin``: an earlier release indexed it."""
    origin: str | None = None


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
    injections: bytes = b""
    """Empty: no passage addresses the model."""

    def by_name(self) -> dict[str, bytes]:
        """Return the files by their names in the version's folder. A name holds digits of the file's hash, so
        that no file is overwritten by another machine, which may round a vector differently."""
        named = {
            "passages": (self.passages, "parquet"),
            "vectors": (self.vectors, "safetensors"),
            "lexical": (self.lexical, "safetensors"),
            "documents": (self.documents, "parquet"),
        }
        if self.injections:
            named["injections"] = (self.injections, "json")
        return {
            f"{name}-{content_sha256(data)[:12]}.{ending}": data for name, (data, ending) in named.items()
        }

    def manifest(self, refs: Mapping[str, ArtifactRef]) -> IndexManifest:
        """Return the manifest of the stored files, given by their names (``by_name``)."""
        passages, vectors, lexical, documents, *injections = (refs[name] for name in self.by_name())
        stored: dict[str, Any] = {
            "passages": passages,
            "vectors": vectors,
            # Earlier releases know no groups, and refuse a version that names more than one file here.
            "lexical": (lexical, documents) if self.is_restricted else (lexical,),
            "documents": documents,
            "injections": next(iter(injections), None),
        }
        return IndexManifest(**shared(IndexManifest, self) | stored)


def config_sha256_of(
    spec: RetrievalSpec, pii: PiiPolicy, embedding: str, *, secret: str = "", searches: bool = True
) -> str:
    """Return a hash of everything except the documents that determines an index. ``secret``: of
    pseudonyms. ``searches``: whether passages that address the model are searched for."""
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
        | ({"injections": FINDER_SHA256} if searches else {})
    )


def index_id_of(
    config_sha256: str,
    records: Mapping[str, str],
    left_out: Collection[str] = (),
    released: Collection[str] = (),
) -> str:
    """Return the name of the version that is made of ``records``, given by document.

    ``left_out``: the documents that the version lacks for a reason in ``MAY_PASS``; with them it would be
    another version. They enter the name even if there are none: names of an earlier release did not depend on
    them, and a version with such a name may lack any document. ``released``: the records with passages that
    address the model and are in the version because a person released them.
    """
    content = {"config": config_sha256, "documents": sorted(records.items()), "left_out": sorted(left_out)}
    return content_id("ix", content | ({"released": sorted(released)} if released else {}))


def without(previous: Index, document_ids: Collection[str]) -> IndexFiles:
    """Return the files of ``previous`` without some documents. They equal a ``build`` of the other documents,
    but nothing is embedded."""
    stays = [row.document_id not in document_ids for row in previous.rows]
    rows = [row for row, stay in zip(previous.rows, stays, strict=True) if stay]
    documents = [DocumentRow(*row) for row in previous.documents.select(list(DOCUMENTS)).iter_rows()]
    left = [one for one in documents if one.document_id not in document_ids]
    manifest = previous.manifest
    files = files_from(
        rows,
        previous.vectors[stays].astype(np.float16),
        left,
        [one for one in previous.injections if one.document_id not in document_ids],
        previous,
        previous.general,
        project=manifest.project,
        config_sha256=manifest.config_sha256,
        embedding=manifest.embedding,
        dimensions=manifest.dimensions,
    )
    return files if len(left) < len(documents) else replace(files, index_id=manifest.index_id)


def files_from(
    rows: Sequence[Passage],
    vectors: np.ndarray,
    documents: Sequence[DocumentRow],
    injections: Sequence[InjectedPassage],
    previous: Index | None,
    general: np.ndarray | None,
    *,
    project: str,
    config_sha256: str,
    embedding: str,
    dimensions: int,
) -> IndexFiles:
    """Return the files of a version with the passages ``rows``, their ``vectors`` and the vectors of the
    ``general`` prompts. Postings of unchanged passages come from ``previous``."""
    reasons = Counter(one.left_out for one in documents if one.left_out)
    postings = _postings(rows, previous)
    measured = {} if general is None else {"general": general.astype(np.float16)}
    found = InjectedPassages(passages=tuple(injections))
    return IndexFiles(
        index_id=index_id_of(
            config_sha256,
            {one.document_id: one.record_id for one in documents},
            [one.document_id for one in documents if one.left_out in MAY_PASS],
            {one.record_id for one in injections if one.released},
        ),
        project=project,
        config_sha256=config_sha256,
        embedding=embedding,
        dimensions=dimensions,
        passages=_parquet(pl.DataFrame([_fields(row) for row in rows], schema=PASSAGES, orient="row")),
        vectors=save({"vectors": vectors} | measured),
        lexical=postings.to_bytes(),
        documents=_parquet(_table(documents)),
        counts=IndexCounts(
            documents=sum(1 for one in documents if one.passages),
            passages=len(rows),
            tokens=sum(row.tokens for row in rows),
            left_out=dict(sorted(reasons.items())),
            waiting=sum(not one.released for one in injections),
        ),
        floors=None if general is None else floors_of(postings, vectors, general),
        is_restricted=any(one.allowed_groups is not None for one in documents),
        injections=found.model_dump_json().encode() if injections else b"",
    )


def unchanged(rows: Sequence[Passage], previous: Index | None) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the pairs (row in ``previous``, row here) of unchanged passages, and the rows of the others."""
    before = {} if previous is None else {row.passage_id: at for at, row in enumerate(previous.rows)}
    kept = [(before[row.passage_id], at) for at, row in enumerate(rows) if row.passage_id in before]
    return kept, [at for at, row in enumerate(rows) if row.passage_id not in before]


def _postings(rows: Sequence[Passage], previous: Index | None) -> Postings:
    kept, fresh = unchanged(rows, previous)
    texts = [rows[at].searched for at in fresh]
    return Postings.merged(previous.postings if previous else None, kept, fresh, texts)


def _table(documents: Sequence[DocumentRow]) -> pl.DataFrame:
    """Return the table of documents. Without restricted documents it has no column of groups."""
    table = pl.DataFrame(documents, schema=DOCUMENTS, orient="row")
    return table if table["allowed_groups"].is_not_null().any() else table.drop("allowed_groups")


def _fields(passage: Passage) -> tuple[object, ...]:
    return tuple(getattr(passage, name) for name in PASSAGES)


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()
