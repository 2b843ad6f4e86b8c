"""Documents in pieces that know their place, ready to make examples of."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ftfy
import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection

from tunewheel_curate.cleaning.injections import broken_up
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.stage import Stage

_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
_BLANK_LINES = re.compile(r"\n{3,}")
_MARK = "\n"
_SUMMARY = "summary: "
"""Before a summary while it is redacted, so that none is taken for JSON, whose keys redaction leaves."""


@dataclass(frozen=True)
class Section:
    """The pieces below one heading of one document, in reading order."""

    record_id: str
    group: str
    title: str
    path: tuple[str, ...]
    pieces: tuple[DocumentSection, ...]

    @property
    def heading(self) -> str:
        """The heading path as text, without a first heading that only repeats the title."""
        own = self.path[1:] if self.path[:1] == (self.title,) else self.path
        return " > ".join(own)

    @property
    def place(self) -> str:
        """Heading path and page or lines, for the lineage."""
        parts = [" > ".join(self.path)] if self.path else []
        first = self.pieces[0]
        if first.page is not None:
            parts.append(f"page {first.page}")
        if first.first_line is not None:
            parts.append(f"lines {first.first_line}-{first.last_line or first.first_line}")
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """All pieces as Markdown."""
        return "\n\n".join(markdown_of(piece) for piece in self.pieces)


def markdown_of(piece: DocumentSection) -> str:
    """Return a piece as Markdown: code in a fence that it cannot close, the rest as it is."""
    if piece.kind != "code":
        return piece.text
    longest = max((len(run) for run in re.findall(r"`{3,}", piece.text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{piece.language or ''}\n{piece.text}\n{fence}"


def read_sections(
    documents: pl.DataFrame, policy: PiiPolicy, *, secret: str = ""
) -> tuple[Stage, list[Section]]:
    """Return the redacted sections of ``documents`` (records), by record and reading order.

    The stage counts pieces; reasons: ``empty``, ``pii`` (where the policy rejects).

    Raises:
        InvalidSpec: see ``redact_records``.
    """
    rows = [row for document in documents.sort("record_id").iter_rows(named=True) for row in _rows(document)]
    pieces = pl.DataFrame(rows, schema=documents.schema)
    stage = redact_records(pieces, policy, secret=secret)
    sections: list[Section] = []
    for record_id, group, heading, text, summary, attributes in stage.kept.select(
        "record_id", "group", "title", "input", "output", "attributes"
    ).iter_rows():
        title, *path = heading.split(_MARK)
        said = {"text": text, "path": path, "summary": summary and summary.removeprefix(_SUMMARY)}
        told = DocumentSection.model_validate(json.loads(attributes) | said)
        _add(sections, Section(record_id.partition(_MARK)[0], group, title, tuple(path), (told,)))
    return Stage("documents.sections", stage.kept, stage.dropped, stage.counts), sections


def _add(sections: list[Section], one: Section) -> None:
    last = sections[-1] if sections else None
    named = one.pieces[0].name is not None
    if (
        last
        and not named
        and (last.record_id, last.path) == (one.record_id, one.path)
        and not last.pieces[0].name
    ):
        sections[-1] = Section(last.record_id, last.group, last.title, last.path, last.pieces + one.pieces)
    else:
        sections.append(one)


def _rows(document: dict[str, object]) -> Iterator[dict[str, object]]:
    """Return one row per piece with a text, as a record whose title holds the heading path, and whose output
    its summary: what is told apart is redacted apart."""
    title = _line(str(document["title"]) or str(document["source_id"]))
    for number, piece in enumerate(_pieces(document)):
        text = broken_up(_repaired(piece.text, verbatim=piece.kind == "code"))
        if not text.strip():
            continue
        told = piece.model_dump(mode="json", exclude={"text", "path", "summary"}, exclude_defaults=True)
        summary = broken_up(_repaired(piece.summary, verbatim=True)) if piece.summary else None
        yield document | {
            "record_id": f"{document['record_id']}{_MARK}{number:06}",
            "title": _MARK.join([title, *map(_line, piece.path)]),
            "input": text,
            "output": summary and _SUMMARY + summary,
            "attributes": json.dumps(told),
        }


def _pieces(document: dict[str, object]) -> Sequence[DocumentSection]:
    if document["sections"]:
        return [DocumentSection.model_validate(raw) for raw in json.loads(str(document["sections"]))]
    # Ingested before sections were: one piece without a place.
    return [DocumentSection(text=str(document["input"]))]


def _repaired(text: str, *, verbatim: bool) -> str:
    """Repair encoding; white space stays where it means something: list indentation, code."""
    fixed = unicodedata.normalize("NFC", ftfy.fix_text(text, _REPAIR))
    trimmed = "\n".join(line.rstrip() for line in fixed.split("\n"))
    return trimmed.strip("\n") if verbatim else _BLANK_LINES.sub("\n\n", trimmed).strip()


def _line(text: str) -> str:
    return " ".join(_repaired(text, verbatim=False).split())
