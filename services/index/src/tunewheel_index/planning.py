"""The plan of one build: what is known when it starts, and what has to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

import polars as pl
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.files import MAY_PASS, IndexFiles
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
    """What is known at the start of a build. Use its properties and methods in a thread: they go through all
    documents."""

    project: str
    spec: RetrievalSpec
    pii: PiiPolicy
    searches: bool
    """Whether passages that address the model are searched for."""
    config: str
    current: Sequence[Version]
    versions: Sequence[Version]
    texts: dict[str, RecordIngested]
    newest: IndexVersioned | None
    index: Index | None
    """The newest version. None: there is none, or it cannot be read."""
    forgotten: Counter[str]
    erasures: int
    upto: Upto
    released: Collection[str]
    """The current records that a person released."""
    tries_again: bool = False
    """Whether this build tries the left-out documents again."""

    @property
    def previous(self) -> Index | None:
        """The newest version, if its passages can be reused."""
        index = self.index
        return index if index is not None and index.manifest.config_sha256 == self.config else None

    @cached_property
    def left_out_before(self) -> set[str]:
        """Documents that the newest version leaves out and that this build tries again, because their retry
        is due or their texts were published again."""
        if self.previous is None:
            return set()
        left_out = self.previous.documents.filter(pl.col("left_out").is_in(list(MAY_PASS)))
        rows = left_out.select("document_id", "record_id").iter_rows()
        return {document for document, record in rows if self.tries_again or record in self.texts}

    @cached_property
    def held(self) -> dict[str, str]:
        """By document, the record whose passages can be reused."""
        before = records_in(self.previous)
        return {name: record for name, record in before.items() if name not in self.left_out_before}

    @cached_property
    def missing_texts(self) -> set[str]:
        """The records that need passages, and whose texts were dropped or never read."""
        fresh = {one.record_id for one in self.current if self.held.get(one.document_id) != one.record_id}
        return fresh - self.texts.keys()

    @cached_property
    def records(self) -> dict[str, str]:
        return {one.document_id: one.record_id for one in self.current}

    @cached_property
    def is_newest(self) -> bool:
        """Whether the newest version already holds all of it, and nothing is tried again."""
        if self.previous is None or self.left_out_before or self.held != self.records:
            return False
        return not any(one.record_id in self.released for one in self.previous.waiting)

    def changed(self, files: IndexFiles) -> int:
        """Return how many documents were added, replaced or removed since the newest version, or have not
        equally many passages in both."""
        before, after = _told_by(self.index), _told_by(files)
        return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())

    def is_outdated(self, project: Project) -> bool:
        """Return whether one of the plan's documents was erased, or another version was named, since the plan
        was made. Most erasures concern people who wrote no document."""
        gone = set(project.erased[self.erasures :])
        is_gone = bool(gone) and any(one.document_id in gone or one.group in gone for one in self.versions)
        return project.newest is not self.newest or is_gone


def records_in(index: Index | None) -> dict[str, str]:
    """Return, by document, the record that ``index`` was built from."""
    if index is None:
        return {}
    return dict(index.documents.select("document_id", "record_id").iter_rows())


def _told_by(version: Index | IndexFiles | None) -> dict[str, tuple[str, int]]:
    """Return, by document, its record and how many passages it has."""
    if version is None:
        return {}
    table = (
        pl.read_parquet(BytesIO(version.documents)) if isinstance(version, IndexFiles) else version.documents
    )
    rows = table.select("document_id", "record_id", "passages").iter_rows()
    return {document: (record, passages) for document, record, passages in rows}
