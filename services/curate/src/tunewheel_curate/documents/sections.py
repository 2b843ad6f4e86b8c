"""The sections of documents, redacted, ready to make examples of."""

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
"""Before a summary while it is redacted, so that none is taken for JSON, whose keys redaction leaves."""


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
    """Return one row per piece with a text, as a record whose title holds the heading path, and whose output
    its summary: what is told apart is redacted apart."""
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
    # Ingested before sections were: one piece without a place.
    return [DocumentSection(text=str(document["input"]))]
