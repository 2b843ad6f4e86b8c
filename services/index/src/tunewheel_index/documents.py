"""Chooses the current version of each document from the ``record.ingested`` events.

The newest version that is neither withdrawn, erased nor refused by a person is current. The newest has the
latest ``occurred_at`` if all of them have one, else the latest publication; ties go to the greater
``record_id``. Curate chooses the newest record of a source by the same rule, so that retrieval and training
use the same version. All times come from the events, so neither their order on the log nor a repeated event
changes the result.

The texts of the chosen versions become documents for passages: repaired, and without personal data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.fields import Frozen, Slug, SourceId, Timestamp
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection, groups_of
from tunewheel_redaction.redaction import Redactor
from tunewheel_retrieval.building import Document
from tunewheel_retrieval.sections import Section, joined, on_one_line, repaired

COLUMNS = {
    "document_id": pl.String,
    "record_id": pl.String,
    "group": pl.String,
    "published_at": pl.Datetime("us", "UTC"),
    "occurred_at": pl.Datetime("us", "UTC"),
}


class Version(Frozen):
    """One published version of a document, without its text."""

    document_id: SourceId
    record_id: Slug
    group: SourceId
    published_at: Timestamp
    """The last publication, if the same version was published more than once."""
    occurred_at: Timestamp | None = None

    @property
    def order(self) -> tuple[datetime, bool, datetime]:
        """The sort key that tells which of two publications of one record is the later."""
        return self.published_at, self.occurred_at is not None, self.occurred_at or self.published_at


Takes = Callable[[Version], bool]
"""Tells whether a version was withdrawn or erased."""
Refused = Callable[[str], bool]
"""Tells whether a person refused a record: none of its passages is served, until the person releases it."""
_Key = tuple[str, datetime | None]
"""A record and its ``occurred_at``. Its last publication decides whether it is withdrawn or erased, because
whatever takes that one takes all earlier ones too."""


class Documents:
    """One project's document versions that are neither withdrawn nor erased, and the texts that are still to
    be indexed. The cost of an event does not grow with the number of documents."""

    def __init__(
        self, takes: Takes, versions: Iterable[Version] = (), *, refused: Refused = lambda _: False
    ) -> None:
        self.takes, self._refused = takes, refused
        self._named: dict[str, str] = {}
        """By record id, the document of each version that was ever applied."""
        self._by_document: dict[str, dict[_Key, Version]] = {}
        self._current: dict[str, Version] = {}
        self.texts: dict[str, RecordIngested] = {}
        """By record id, the texts of current versions that are in no index yet."""
        self.forgotten = Counter[str]()
        """By document, how many withdrawn or erased versions the last stored table may still list."""
        for version in versions:
            if takes(version):
                self.forgotten[version.document_id] += 1
            else:
                self._add(version)
        for document_id in self._by_document:
            self._choose(document_id)

    def apply(self, record: RecordIngested, published_at: datetime, *, again: bool = False) -> bool:
        """Apply a record of kind ``document``; return whether it is a new version or a later publication.

        ``again``: keep the text although the version is known. Its text was dropped and is needed once more.
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
        before = self._by_document.get(version.document_id, {}).get(_key_of(version))
        is_news = before is None or before.published_at < version.published_at
        if is_news:
            self._add(version)
        if is_news or again:
            self.texts[record.record_id] = record
            self._choose(version.document_id)
        return is_news

    def _add(self, version: Version) -> None:
        self._by_document.setdefault(version.document_id, {})[_key_of(version)] = version
        self._named[version.record_id] = version.document_id

    def judge(self, record_id: str) -> bool:
        """Choose anew after a person's decision about a record; return whether it is a document's version."""
        document_id = self._named.get(record_id)
        if document_id is None or document_id not in self._by_document:
            return False
        self._choose(document_id)
        return True

    def take_back(self, document_id: str) -> bool:
        """Forget the withdrawn and erased versions of a document; return whether there were any. ``apply``
        refuses such a version if the log delivers it again."""
        versions = self._by_document.get(document_id, {})
        taken = [key for key, version in versions.items() if self.takes(version)]
        for key in taken:
            del versions[key]
            self.texts.pop(key[0], None)
        if taken:
            self.forgotten[document_id] += len(taken)
            self._choose(document_id)
        return bool(taken)

    def current(self) -> dict[str, Version]:
        """Return the current version of each document, by document id."""
        return dict(self._current)

    def all(self) -> list[Version]:
        """Return all versions. The next process continues from them."""
        return [version for versions in self._by_document.values() for version in versions.values()]

    def standing(self, document_id: str) -> set[str]:
        """Return the record ids of a document's versions."""
        return {record_id for record_id, _ in self._by_document.get(document_id, {})}

    def _choose(self, document_id: str) -> None:
        """Choose the current version of a document, and drop the texts of its other versions."""
        versions = self._by_document[document_id]
        if not versions:
            del self._by_document[document_id]
            self._current.pop(document_id, None)
            return
        left = [one for one in versions.values() if not self._refused(one.record_id)]
        current = _newest(left) if left else None
        if current is None:
            self._current.pop(document_id, None)
        else:
            self._current[document_id] = current
        for record_id, _ in versions:
            if current is None or record_id != current.record_id:
                self.texts.pop(record_id, None)


def _key_of(version: Version) -> _Key:
    return version.record_id, version.occurred_at


def _newest(standing: Iterable[Version]) -> Version:
    by_record: dict[str, Version] = {}
    for one in standing:
        other = by_record.setdefault(one.record_id, one)
        by_record[one.record_id] = max(one, other, key=lambda version: version.order)
    dated = all(one.occurred_at is not None for one in by_record.values())

    def newest(one: Version) -> tuple[datetime, datetime, str]:
        said = one.occurred_at if dated and one.occurred_at is not None else one.published_at
        return said, one.published_at, one.record_id

    return max(by_record.values(), key=newest)


def to_frame(versions: Iterable[Version]) -> pl.DataFrame:
    """Return one row of ``COLUMNS`` per version. The order of the rows does not depend on the input's."""
    rows = [tuple(getattr(version, name) for name in COLUMNS) for version in versions]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row").sort("document_id", "record_id", "occurred_at")


def from_frame(frame: pl.DataFrame) -> list[Version]:
    """Return the versions in a table that ``to_frame`` made."""
    return [Version.model_validate(row) for row in frame.select(list(COLUMNS)).iter_rows(named=True)]


PII = "pii"
AT_ONCE = 200
"""How many documents are redacted in one call; a call has a cost of its own."""


@dataclass(frozen=True)
class _Piece:
    at: int
    """The position of the piece's document."""
    piece: DocumentSection
    path: tuple[str, ...]
    text: str


def documents_of(
    records: Sequence[tuple[Version, RecordIngested]], policy: PiiPolicy, *, secret: str = ""
) -> Iterator[Document]:
    """Yield the documents, with personal data treated by the project's ``policy``.

    If the policy is to reject, pieces with personal data are left out, and so are documents whose title
    holds any.

    Raises:
        InvalidSpec: see ``Redactor``.
    """
    for start in range(0, len(records), AT_ONCE):
        yield from _some(records[start : start + AT_ONCE], policy, secret)


def _some(
    records: Sequence[tuple[Version, RecordIngested]], policy: PiiPolicy, secret: str
) -> Iterator[Document]:
    titles = [on_one_line(record.title) or version.document_id for version, record in records]
    pieces = [piece for at, (_, record) in enumerate(records) for piece in _pieces(at, record)]
    groups = [version.group for version, _ in records]
    project = records[0][1].project
    raw = [*titles, *(text for piece in pieces for text in (*piece.path, piece.text))]
    owners = [*groups, *(groups[piece.at] for piece in pieces for _ in (*piece.path, piece.text))]
    clean = raw
    if policy.action != "keep":
        redactor = Redactor(policy, project=project, secret=secret)
        clean = redactor.clean(pl.Series(raw, dtype=pl.String), pl.Series(owners, dtype=pl.String)).to_list()
    rejects = policy.action == "reject"
    rest = iter(clean[len(titles) :])
    sections: list[list[Section]] = [[] for _ in records]
    touched = [rejects and clean[at] != title for at, title in enumerate(titles)]
    lost = [False for _ in records]
    for piece in pieces:
        path, text = tuple(next(rest) for _ in piece.path), next(rest)
        if rejects and (path, text) != (piece.path, piece.text):
            lost[piece.at] = True
            continue
        version, _ = records[piece.at]
        shown = piece.piece.model_copy(update={"path": path, "text": text, "summary": None})
        sections[piece.at].append(Section(version.record_id, version.group, clean[piece.at], path, (shown,)))
    for at, (version, record) in enumerate(records):
        whole = joined(sections[at])
        rejected = touched[at] or (lost[at] and not whole)
        yield Document(
            document_id=version.document_id,
            record_id=version.record_id,
            published_at=version.published_at,
            title="" if touched[at] else clean[at],
            sections=[] if rejected else whole,
            left_out=PII if rejected else None,
            allowed_groups=groups_of(record.attributes),
            trust=record.trust,
            origin=record.principal.origin if record.principal is not None else "",
        )


def _pieces(at: int, record: RecordIngested) -> Iterator[_Piece]:
    for piece in record.sections or (DocumentSection(text=record.input),):
        text = repaired(piece.text, verbatim=piece.kind == "code")
        if text.strip():
            yield _Piece(at, piece, tuple(map(on_one_line, piece.path)), text)
