"""Reads the sections of documents and redacts them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_retrieval.sections import Section, joined, on_one_line, repaired

from tunewheel_curate.cleaning.injections import broken_up
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.stage import Stage

_MARK = "\n"
_SUMMARY = "summary: "
"""A prefix of summaries during redaction. Without it, a summary that looks like JSON would be redacted as
JSON, and its keys would stay."""


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
        sections.append(Section(record_id.partition(_MARK)[0], group, title, tuple(path), (told,)))
    return Stage("documents.sections", stage.kept, stage.dropped, stage.counts), joined(sections)


def _rows(document: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield a record for each piece with text: the title is the heading path, the output is the summary. So
    each of the three texts is redacted by itself."""
    title = on_one_line(str(document["title"]) or str(document["source_id"]))
    for number, piece in enumerate(_pieces(document)):
        text = broken_up(repaired(piece.text, verbatim=piece.kind == "code"))
        if not text.strip():
            continue
        told = piece.model_dump(mode="json", exclude={"text", "path", "summary"}, exclude_defaults=True)
        summary = broken_up(repaired(piece.summary, verbatim=True)) if piece.summary else None
        yield document | {
            "record_id": f"{document['record_id']}{_MARK}{number:06}",
            "title": _MARK.join([title, *map(on_one_line, piece.path)]),
            "input": text,
            "output": summary and _SUMMARY + summary,
            "attributes": json.dumps(told),
        }


def _pieces(document: dict[str, object]) -> Sequence[DocumentSection]:
    if document["sections"]:
        return [DocumentSection.model_validate(raw) for raw in json.loads(str(document["sections"]))]
    # A document that was ingested before sections existed is one piece without a place.
    return [DocumentSection(text=str(document["input"]))]
