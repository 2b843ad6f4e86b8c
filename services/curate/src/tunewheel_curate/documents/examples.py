"""Examples made of documents: passages, questions with answers, code with its summary.

They train beside the project's answers and are never held out: their form is not the task's, so neither its
schema nor its labels apply to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_retrieval.sections import Section, joined, on_one_line, repaired

from tunewheel_curate.cleaning.control_tokens import broken_up
from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.documents.drafts import drafts_of, is_told
from tunewheel_curate.documents.teaching import section_key
from tunewheel_curate.stage import DRAFTED_SCHEMA, RECORD_SCHEMA, TRAIN, Stage, drop, without_texts
from tunewheel_curate.step import Lane

if TYPE_CHECKING:
    from tunewheel_curate.inputs import Pinned

_DRAFT = {**RECORD_SCHEMA, **DRAFTED_SCHEMA, "reason": pl.String()}
_JOINT = "\n"
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
        title, *path = heading.split(_JOINT)
        said = {"text": text, "path": path, "summary": summary and summary.removeprefix(_SUMMARY)}
        section = DocumentSection.model_validate(json.loads(attributes) | said)
        sections.append(Section(record_id.partition(_JOINT)[0], group, title, tuple(path), (section,)))
    return Stage("documents.sections", stage.kept, stage.dropped, stage.counts), joined(sections)


def _rows(document: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield a record for each piece with text: the title is the heading path, the output is the summary. So
    each of the three texts is redacted by itself."""
    title = on_one_line(str(document["title"]) or str(document["source_id"]))
    for number, piece in enumerate(_pieces(document)):
        text = broken_up(repaired(piece.text, verbatim=piece.kind == "code"))
        if not text.strip():
            continue
        facts = piece.model_dump(mode="json", exclude={"text", "path", "summary"}, exclude_defaults=True)
        summary = broken_up(repaired(piece.summary, verbatim=True)) if piece.summary else None
        yield document | {
            "record_id": f"{document['record_id']}{_JOINT}{number:06}",
            "title": _JOINT.join([title, *map(on_one_line, piece.path)]),
            "input": text,
            "output": summary and _SUMMARY + summary,
            "attributes": json.dumps(facts),
        }


def _pieces(document: dict[str, object]) -> Sequence[DocumentSection]:
    if document["sections"]:
        return [DocumentSection.model_validate(raw) for raw in json.loads(str(document["sections"]))]
    # A document that was ingested before sections existed is one piece without a place.
    return [DocumentSection(text=str(document["input"]))]


def draft_documents(documents: pl.DataFrame, spec: ProjectSpec, pinned: Pinned) -> Lane | None:
    """Return drafts of the examples that ``spec`` asks for, made of ``documents`` (records).

    Raises:
        InvalidSpec: see ``read_sections``.
    """
    if not spec.dataset.formats.documents.enabled:
        return None
    read, sections = read_sections(documents, spec.dataset.pii, secret=pinned.secret)
    drafts = pl.DataFrame(list(drafts_of(sections, spec, pinned.tokens, pinned.lessons)), schema=_DRAFT)
    drafts = drafts.with_columns(pl.lit(TRAIN).alias("side"))
    drafted = drop("documents.drafts", drafts.drop("reason"), drafts["reason"])
    return Lane(drafted.kept, [without_texts(read), without_texts(drafted)], prefix="documents.")


def question_sections(documents: pl.DataFrame, spec: ProjectSpec, *, secret: str = "") -> dict[str, Section]:
    """Return the redacted sections that a teacher should be asked about, by key.

    Raises:
        InvalidSpec: see ``read_sections``.
    """
    questions = spec.dataset.formats.documents.questions
    _, sections = read_sections(documents, spec.dataset.pii, secret=secret)
    return {section_key(section, questions): section for section in sections if is_told(section)}


def drop_repetition(drafts: pl.DataFrame) -> Stage:
    """Drop all but one of the drafts with the same answer and format; the smallest id stays. Documents repeat
    each other: every SOP may have the same contact list."""
    keys = [
        comparison_key(f"{asked}\n{answer}") for asked, answer in drafts.select("input", "output").iter_rows()
    ]
    answers = [comparison_key(text) for text in drafts["output"]]
    ordered = drafts.with_columns(
        pl.Series("_both", keys, dtype=pl.String), pl.Series("_answer", answers, dtype=pl.String)
    ).sort("record_id")
    again = pl.when(
        ~pl.col("_both").is_first_distinct() | ~pl.struct("format", "_answer").is_first_distinct()
    ).then(pl.lit("exact_duplicate"))
    stage = drop("repetition", ordered, ordered.select(again.alias("reason")).to_series())
    return replace(stage, kept=stage.kept.drop("_both", "_answer"))
