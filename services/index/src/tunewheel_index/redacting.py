"""Turns records into documents for passages: repairs their text and removes personal data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_redaction.redaction import Redactor
from tunewheel_retrieval.building import Document
from tunewheel_retrieval.sections import Section, joined, on_one_line, repaired

from tunewheel_index.documents import Version

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
    told: Sequence[tuple[Version, RecordIngested]], policy: PiiPolicy, *, secret: str = ""
) -> Iterator[Document]:
    """Yield the documents, with personal data treated by the project's ``policy``.

    If the policy is to reject, pieces with personal data are left out, and so are documents whose title
    holds any.

    Raises:
        InvalidSpec: see ``Redactor``.
    """
    for start in range(0, len(told), AT_ONCE):
        yield from _some(told[start : start + AT_ONCE], policy, secret)


def _some(
    told: Sequence[tuple[Version, RecordIngested]], policy: PiiPolicy, secret: str
) -> Iterator[Document]:
    titles = [on_one_line(record.title) or version.document_id for version, record in told]
    pieces = [piece for at, (_, record) in enumerate(told) for piece in _pieces(at, record)]
    groups = [version.group for version, _ in told]
    project = told[0][1].project
    raw = [*titles, *(text for piece in pieces for text in (*piece.path, piece.text))]
    owners = [*groups, *(groups[piece.at] for piece in pieces for _ in (*piece.path, piece.text))]
    clean = raw
    if policy.action != "keep":
        redactor = Redactor(policy, project=project, secret=secret)
        clean = redactor.clean(pl.Series(raw, dtype=pl.String), pl.Series(owners, dtype=pl.String)).to_list()
    rejects = policy.action == "reject"
    rest = iter(clean[len(titles) :])
    sections: list[list[Section]] = [[] for _ in told]
    touched = [rejects and clean[at] != title for at, title in enumerate(titles)]
    lost = [False for _ in told]
    for piece in pieces:
        path, text = tuple(next(rest) for _ in piece.path), next(rest)
        if rejects and (path, text) != (piece.path, piece.text):
            lost[piece.at] = True
            continue
        version, _ = told[piece.at]
        shown = piece.piece.model_copy(update={"path": path, "text": text, "summary": None})
        sections[piece.at].append(Section(version.record_id, version.group, clean[piece.at], path, (shown,)))
    for at, (version, _) in enumerate(told):
        whole = joined(sections[at])
        rejected = touched[at] or (lost[at] and not whole)
        yield Document(
            document_id=version.document_id,
            record_id=version.record_id,
            published_at=version.published_at,
            title="" if touched[at] else clean[at],
            sections=[] if rejected else whole,
            left_out=PII if rejected else None,
        )


def _pieces(at: int, record: RecordIngested) -> Iterator[_Piece]:
    for piece in record.sections or (DocumentSection(text=record.input),):
        text = repaired(piece.text, verbatim=piece.kind == "code")
        if text.strip():
            yield _Piece(at, piece, tuple(map(on_one_line, piece.path)), text)
