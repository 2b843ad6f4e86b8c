"""Which version of each document counts: a fold over ``record.ingested``, the same in any order.

Of the versions of one document that nobody took back, the newest counts: the latest by ``occurred_at`` where
every one of them says so, else the latest published, then the greater ``record_id``. That is curate's rule
for the newest record of a source, so that an answer is retrieved from the version that is learnt from. The
moments stand in the events: neither the order on the log nor how often an event comes makes a difference.
"""

from __future__ import annotations

from collections import Counter
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
_Key = tuple[str, datetime | None]
"""A record and when it happened. The last of its publications decides: what takes it takes all before it."""


class Documents:
    """The versions of one project's documents that nobody took back, and the texts that are still to be
    indexed. An event costs the document that it names, however many others there are."""

    def __init__(self, takes: Takes, versions: Iterable[Version] = ()) -> None:
        self.takes = takes
        self._by_document: dict[str, dict[_Key, Version]] = {}
        self._current: dict[str, Version] = {}
        self.texts: dict[str, RecordIngested] = {}
        """By record, of versions that count and are in no index yet."""
        self.forgotten = Counter[str]()
        """By document, versions that were taken back and that the last table of versions may still name."""
        for version in versions:
            if takes(version):
                self.forgotten[version.document_id] += 1
            else:
                self._by_document.setdefault(version.document_id, {})[_key_of(version)] = version
        for document_id in self._by_document:
            self._choose(document_id)

    def apply(self, record: RecordIngested, published_at: datetime, *, again: bool = False) -> bool:
        """Take note of a record of kind ``document``; return whether it changes what is known.

        ``again``: its text was let go, and is wanted once more.
        """
        version = Version(
            document_id=record.source_id,
            record_id=record.record_id,
            group=record.group,
            published_at=published_at,
            occurred_at=record.occurred_at,
        )
        if self.takes(version):
            return False
        known = self._by_document.setdefault(version.document_id, {})
        before = known.get(_key_of(version))
        is_news = before is None or before.published_at < version.published_at
        if is_news:
            known[_key_of(version)] = version
        if is_news or again:
            self.texts[record.record_id] = record
            self._choose(version.document_id)
        return is_news

    def take_back(self, document_id: str) -> bool:
        """Forget the versions of a document that were taken back, and return whether there were any: one that
        comes again is taken back again."""
        known = self._by_document.get(document_id, {})
        taken = [key for key, version in known.items() if self.takes(version)]
        for key in taken:
            del known[key]
            self.texts.pop(key[0], None)
        if taken:
            self.forgotten[document_id] += len(taken)
            self._choose(document_id)
        return bool(taken)

    def current(self) -> dict[str, Version]:
        """Return the version that counts of each document, by its id."""
        return dict(self._current)

    def known(self) -> list[Version]:
        """Return all versions: what the next process has to know."""
        return [version for known in self._by_document.values() for version in known.values()]

    def standing(self, document_id: str) -> set[str]:
        """Return the records of a document."""
        return {record_id for record_id, _ in self._by_document.get(document_id, {})}

    def _choose(self, document_id: str) -> None:
        """Decide which version of a document counts, and let go of the texts of the others."""
        known = self._by_document[document_id]
        if not known:
            del self._by_document[document_id]
            self._current.pop(document_id, None)
            return
        self._current[document_id] = current = _newest(known.values())
        for record_id, _ in known:
            if record_id != current.record_id:
                self.texts.pop(record_id, None)


def _key_of(version: Version) -> _Key:
    return version.record_id, version.occurred_at


def _newest(standing: Iterable[Version]) -> Version:
    by_record: dict[str, Version] = {}
    for one in standing:
        other = by_record.setdefault(one.record_id, one)
        by_record[one.record_id] = max(one, other, key=lambda version: version.told)
    dated = all(one.occurred_at is not None for one in by_record.values())

    def newest(one: Version) -> tuple[datetime, datetime, str]:
        said = one.occurred_at if dated and one.occurred_at is not None else one.published_at
        return said, one.published_at, one.record_id

    return max(by_record.values(), key=newest)


def to_frame(versions: Iterable[Version]) -> pl.DataFrame:
    """Return one row of ``COLUMNS`` per version, in an order that does not depend on theirs."""
    rows = [tuple(getattr(version, name) for name in COLUMNS) for version in versions]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row").sort("document_id", "record_id", "occurred_at")


def from_frame(frame: pl.DataFrame) -> list[Version]:
    """Return the versions that ``to_frame`` made a table of."""
    return [Version.model_validate(row) for row in frame.select(list(COLUMNS)).iter_rows(named=True)]
