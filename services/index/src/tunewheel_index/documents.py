"""Which version of each document counts: a fold over ``record.ingested``, the same in any order.

Of the versions of one document that nobody took back, the newest counts: the latest by ``occurred_at`` where
every one of them says so, else the latest published, then the greater ``record_id``. That is curate's rule
for the newest record of a source, so that an answer is retrieved from the version that is learnt from. The
moments stand in the events: neither the order on the log nor how often an event comes makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import polars as pl
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.fields import Frozen, Slug, SourceId, Timestamp

COLUMNS = {
    "document_id": pl.String,
    "record_id": pl.String,
    "group": pl.String,
    "published_at": pl.Datetime("us", "UTC"),
    "occurred_at": pl.Datetime("us", "UTC"),
}


class Version(Frozen):
    """One version of a document: what was published of it once, without the text."""

    document_id: SourceId
    record_id: Slug
    group: SourceId
    published_at: Timestamp
    """Last, where the same was published more than once."""
    occurred_at: Timestamp | None = None

    @property
    def told(self) -> tuple[datetime, bool, datetime]:
        """By which of two publications of one record the later is known."""
        return self.published_at, self.occurred_at is not None, self.occurred_at or self.published_at


Takes = Callable[[Version], bool]
"""Tells whether a version was withdrawn or erased."""


class Documents:
    """The versions of one project's documents, and the texts that are still to be indexed."""

    def __init__(self, takes: Takes, versions: Iterable[Version] = ()) -> None:
        self._takes = takes
        self._by_document: dict[str, dict[str, Version]] = {}
        self.texts: dict[str, RecordIngested] = {}
        """By record, of versions that count and are in no index yet."""
        for version in versions:
            self._by_document.setdefault(version.document_id, {})[version.record_id] = version

    def apply(self, record: RecordIngested, published_at: datetime, *, again: bool = False) -> bool:
        """Take note of a record of kind ``document``; return whether it changes what is known.

        ``again``: the whole log is read once more, for texts that were let go.
        """
        version = Version(
            document_id=record.source_id,
            record_id=record.record_id,
            group=record.group,
            published_at=published_at,
            occurred_at=record.occurred_at,
        )
        known = self._by_document.setdefault(version.document_id, {})
        before = known.get(version.record_id)
        is_news = before is None or before.told < version.told
        if is_news:
            known[version.record_id] = version
        if is_news or again:
            self.texts[record.record_id] = record
            self._drop_texts_of_others(version.document_id)
        return is_news

    def current(self) -> dict[str, Version]:
        """Return the version that counts of each document, by its id, sorted."""
        found = {name: self._current_of(name) for name in sorted(self._by_document)}
        return {name: version for name, version in found.items() if version is not None}

    def prune(self) -> int:
        """Forget the versions that were taken back, and return how many: one that comes again is taken back
        again."""
        taken = [one for known in self._by_document.values() for one in known.values() if self._takes(one)]
        for version in taken:
            del self._by_document[version.document_id][version.record_id]
            self.texts.pop(version.record_id, None)
        self._by_document = {name: known for name, known in self._by_document.items() if known}
        return len(taken)

    def known(self) -> list[Version]:
        """Return all versions, sorted: what the next process has to know."""
        every = [version for known in self._by_document.values() for version in known.values()]
        return sorted(every, key=lambda version: (version.document_id, version.record_id))

    def standing(self, document_id: str) -> list[Version]:
        """Return the versions of a document that nobody took back."""
        return [one for one in self._by_document.get(document_id, {}).values() if not self._takes(one)]

    def _current_of(self, document_id: str) -> Version | None:
        standing = self.standing(document_id)
        dated = all(one.occurred_at is not None for one in standing)

        def newest(one: Version) -> tuple[datetime, datetime, str]:
            said = one.occurred_at if dated and one.occurred_at is not None else one.published_at
            return said, one.published_at, one.record_id

        return max(standing, key=newest, default=None)

    def _drop_texts_of_others(self, document_id: str) -> None:
        current = self._current_of(document_id)
        for record_id in self._by_document[document_id]:
            if current is None or record_id != current.record_id:
                self.texts.pop(record_id, None)


def to_frame(versions: Iterable[Version]) -> pl.DataFrame:
    """Return one row of ``COLUMNS`` per version."""
    rows = [tuple(getattr(version, name) for name in COLUMNS) for version in versions]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def from_frame(frame: pl.DataFrame) -> list[Version]:
    """Return the versions that ``to_frame`` made a table of."""
    return [Version.model_validate(row) for row in frame.select(list(COLUMNS)).iter_rows(named=True)]
