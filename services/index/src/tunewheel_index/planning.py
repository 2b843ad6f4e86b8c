"""What is known when a version is begun, and what of it is to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

import polars as pl
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.building import MAY_PASS, IndexFiles
from tunewheel_retrieval.index import Index

from tunewheel_index.documents import Version
from tunewheel_index.project import Project


@dataclass(frozen=True)
class Upto:
    """How far the log has been read, by topic and partition."""

    records: RecordsUpto
    withdrawals: RecordsUpto
    erasures: RecordsUpto


@dataclass(frozen=True)
class Plan:
    """One version to be built: what was known when it was begun. What is derived from it takes a moment for
    each document, and is asked for in a thread."""

    project: str
    spec: RetrievalSpec
    pii: PiiPolicy
    config: str
    current: Sequence[Version]
    known: Sequence[Version]
    texts: dict[str, RecordIngested]
    newest: IndexVersioned | None
    index: Index | None
    """The newest version, where it can be read."""
    forgotten: Counter[str]
    erasures: int
    upto: Upto
    tries_again: bool = False
    """Whether documents that were left out are tried again."""

    @property
    def previous(self) -> Index | None:
        """The newest version, where its passages can be taken over."""
        index = self.index
        return index if index is not None and index.manifest.config_sha256 == self.config else None

    @cached_property
    def left_out_before(self) -> set[str]:
        """Documents that the newest version leaves out, and this one may not: it is their turn, or their
        texts came again."""
        if self.previous is None:
            return set()
        told = self.previous.documents.filter(pl.col("left_out").is_in(list(MAY_PASS)))
        rows = told.select("document_id", "record_id").iter_rows()
        return {document for document, record in rows if self.tries_again or record in self.texts}

    @cached_property
    def held(self) -> dict[str, str]:
        """By document, the record whose passages can be taken over."""
        before = records_in(self.previous)
        return {name: record for name, record in before.items() if name not in self.left_out_before}

    @cached_property
    def missing_texts(self) -> set[str]:
        """The records whose passages are to be made, and whose texts were let go or never read."""
        fresh = {one.record_id for one in self.current if self.held.get(one.document_id) != one.record_id}
        return fresh - self.texts.keys()

    @cached_property
    def records(self) -> dict[str, str]:
        return {one.document_id: one.record_id for one in self.current}

    @cached_property
    def is_newest(self) -> bool:
        """Whether it is what the newest version holds, and nothing is tried again."""
        return self.previous is not None and not self.left_out_before and self.held == self.records

    def changed(self, files: IndexFiles) -> int:
        """Return how many documents are new, other, or gone since the newest version, or have passages in one
        of the two alone."""
        before, after = _told_by(self.index), _told_by(files)
        return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())

    def is_outdated(self, project: Project) -> bool:
        """Tell whether a document of it was erased, or another version named, since it was made. Most
        erasures are of people who wrote no document."""
        gone = set(project.erased[self.erasures :])
        is_gone = bool(gone) and any(one.document_id in gone or one.group in gone for one in self.known)
        return project.newest is not self.newest or is_gone


def records_in(index: Index | None) -> dict[str, str]:
    """Return, by document, the record that ``index`` was built from."""
    if index is None:
        return {}
    return dict(index.documents.select("document_id", "record_id").iter_rows())


def _told_by(version: Index | IndexFiles | None) -> dict[str, tuple[str, bool]]:
    """Return, by document, its record, and whether it has passages."""
    if version is None:
        return {}
    table = (
        pl.read_parquet(BytesIO(version.documents)) if isinstance(version, IndexFiles) else version.documents
    )
    rows = table.select("document_id", "record_id", pl.col("passages") > 0).iter_rows()
    return {document: (record, is_held) for document, record, is_held in rows}
