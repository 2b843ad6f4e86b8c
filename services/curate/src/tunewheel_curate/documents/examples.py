"""Examples made of documents: passages, questions with answers, code with its summary.

They train beside the project's answers and are never held out: their form is not the task's, so neither its
schema nor its labels apply to them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_retrieval.sections import Section, joined, on_one_line, repaired

from tunewheel_curate.cleaning.injections import PROMPT_INJECTION, broken_up, injected
from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.documents.drafts import drafts_of, is_told
from tunewheel_curate.documents.teaching import section_key
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, Overlap
from tunewheel_curate.evaluation.contamination import decontaminate
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import format_examples
from tunewheel_curate.holdout.memory import HELD_OUT_BEFORE, HoldoutMemory
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY, Split
from tunewheel_curate.similarity.near_index import empty_index
from tunewheel_curate.stage import RECORD_SCHEMA, Stage, drop, dropped_frame, without_texts
from tunewheel_curate.step import Lane

if TYPE_CHECKING:
    from tunewheel_curate.inputs import Pinned

PROVENANCE = {
    "record_id": pl.String(),
    "example_id": pl.String(),
    "format": pl.String(),
    "place": pl.String(),
    "heading": pl.String(),
}
_DRAFT = {**RECORD_SCHEMA, "label": pl.String(), "document": pl.String(), "format": pl.String(),
          "place": pl.String(), "heading": pl.String(), "reason": pl.String()}  # fmt: skip


_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|\n")
_MARK = re.compile(r"^[\s#>*-]*(?:Q:|\d+[.)])?\s*|(?<![\s*])[\s*]+$")
"""The mark before a heading, a list item or a question in a FAQ. It matches only at the beginning of a run of
blanks or stars: tried from every character, a long run would take hours."""
_JOINT = "\n"
_SUMMARY = "summary: "
"""A prefix of summaries during redaction. Without it, a summary that looks like JSON would be redacted as
JSON, and its keys would stay."""


@dataclass(frozen=True)
class DocumentExamples:
    """``examples`` has the columns of a split. ``provenance`` has the record and the place of each
    example."""

    examples: pl.DataFrame
    provenance: pl.DataFrame
    stages: tuple[Stage, ...]
    """The stages of sections, then those of drafts. Their rows have ids of their own, not record ids."""
    unused: pl.DataFrame
    """Rows of ``DROPPED_SCHEMA`` for the documents without an example."""
    flags: pl.DataFrame
    """``record_id`` and ``flags`` of the documents whose text addresses the model."""
    extractive: int
    """How many questions were made from headings, without a teacher."""
    overlaps: tuple[Overlap, ...] = ()
    """The overlaps of the documents' examples with benchmarks; see ``decontaminate``."""

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """Return, by example id, the record and the heading that the example was made of."""
        rows = self.provenance.select("example_id", "record_id", "heading").iter_rows()
        return {name: (record_id, heading) for name, record_id, heading in rows}


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
        told = DocumentSection.model_validate(json.loads(attributes) | said)
        sections.append(Section(record_id.partition(_JOINT)[0], group, title, tuple(path), (told,)))
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
            "record_id": f"{document['record_id']}{_JOINT}{number:06}",
            "title": _JOINT.join([title, *map(on_one_line, piece.path)]),
            "input": text,
            "output": summary and _SUMMARY + summary,
            "attributes": json.dumps(told),
        }


def _pieces(document: dict[str, object]) -> Sequence[DocumentSection]:
    if document["sections"]:
        return [DocumentSection.model_validate(raw) for raw in json.loads(str(document["sections"]))]
    # A document that was ingested before sections existed is one piece without a place.
    return [DocumentSection(text=str(document["input"]))]


def draft_documents(documents: pl.DataFrame, spec: ProjectSpec, pinned: Pinned) -> Lane:
    """Return drafts of the examples that ``spec`` asks for, made of ``documents`` (records).

    Raises:
        InvalidSpec: see ``read_sections``.
    """
    read, sections = read_sections(documents, spec.dataset.pii, secret=pinned.secret)
    drafts = pl.DataFrame(list(drafts_of(sections, spec, pinned.tokens, pinned.lessons)), schema=_DRAFT)
    drafted = drop("documents.drafts", drafts.drop("reason"), drafts["reason"])
    return Lane(drafted.kept, [without_texts(read), without_texts(drafted)], prefix="documents.")


def add_documents(
    documents: pl.DataFrame,
    drafts: Lane,
    spec: ProjectSpec,
    split: Split,
    benchmarks: Sequence[BenchmarkTexts],
    *,
    memory: HoldoutMemory,
) -> DocumentExamples:
    """Return the examples made of ``drafts``, which were made of ``documents``.

    An example is left out if it holds or resembles a held-out question, overlaps a benchmark, or asks a
    question that an earlier version held out.
    """
    examples, provenance = _examples(drafts.rows, spec.dataset.formats.documents.system_prompt)
    remembered = _named(not_held_out(examples, memory))
    policy = spec.dataset.contamination.model_copy(update={"action": "drop"})
    cleared = decontaminate(
        Split(remembered.kept, remembered.kept.clear()),
        [*benchmarks, held_out_questions(split.holdout)],
        policy,
        threshold=LEAK_SIMILARITY,
        index=empty_index(),
    )
    kept = cleared.split.train
    provenance = provenance.filter(pl.col("example_id").is_in(kept["example_id"].implode()))
    unused = documents.join(provenance, on="record_id", how="anti", maintain_order="left")["record_id"]
    return DocumentExamples(
        examples=kept,
        provenance=provenance,
        stages=(*drafts.stages, remembered, _named(cleared.stage)),
        unused=dropped_frame(unused, pl.Series(["no_examples"] * len(unused), dtype=pl.String)),
        flags=documents.filter(injected(pl.col("input"))).select(
            "record_id", pl.lit(PROMPT_INJECTION).alias("flags")
        ),
        extractive=drafts.rows.filter(pl.col("attributes") == "extractive").height,
        overlaps=cleared.overlaps,
    )


def question_sections(documents: pl.DataFrame, spec: ProjectSpec, *, secret: str = "") -> dict[str, Section]:
    """Return the redacted sections that a teacher should be asked about, by key.

    Raises:
        InvalidSpec: see ``read_sections``.
    """
    questions = spec.dataset.formats.documents.questions
    _, sections = read_sections(documents, spec.dataset.pii, secret=secret)
    return {section_key(section, questions): section for section in sections if is_told(section)}


def not_held_out(examples: pl.DataFrame, memory: HoldoutMemory) -> Stage:
    """Drop the ``examples`` (with ``example_id`` and ``messages``) that ask a question which was ever held
    out, or that hold one as a line or a sentence. The memory is asked because the ticket itself may be
    gone."""
    held = [
        any(memory.holds_question(comparison_key(text)) for text in _parts(turns))
        for turns in examples["messages"]
    ]
    reason = pl.Series([HELD_OUT_BEFORE if one else None for one in held], dtype=pl.String)
    stage = drop("holdout", examples.with_columns(pl.col("example_id").alias("record_id")), reason)
    return replace(stage, kept=stage.kept.select(examples.columns))


def _parts(turns: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield the user's questions, and every line and sentence of all turns, with and without its list
    mark."""
    for turn in turns:
        if turn["role"] == "user":
            yield turn["content"]
        for text in {*turn["content"].split("\n"), *_SENTENCE_END.split(turn["content"])}:
            yield from {text, _MARK.sub("", text)}


def _named(stage: Stage) -> Stage:
    return replace(stage, name=f"documents.{stage.name}")


def drop_repetition(drafts: pl.DataFrame) -> Stage:
    """Drop all but one of the drafts with the same answer and format; the smallest id stays. Documents repeat
    each other: every SOP may have the same contact list."""
    keys = [
        comparison_key(f"{asked}\n{told}") for asked, told in drafts.select("input", "output").iter_rows()
    ]
    told = [comparison_key(text) for text in drafts["output"]]
    ordered = drafts.with_columns(
        pl.Series("_both", keys, dtype=pl.String), pl.Series("_told", told, dtype=pl.String)
    ).sort("record_id")
    again = pl.when(
        ~pl.col("_both").is_first_distinct() | ~pl.struct("format", "_told").is_first_distinct()
    ).then(pl.lit("exact_duplicate"))
    stage = drop("repetition", ordered, ordered.select(again.alias("reason")).to_series())
    return replace(stage, kept=stage.kept.drop("_both", "_told"))


def _examples(drafts: pl.DataFrame, system_prompt: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    made = format_examples(drafts, system_prompt=system_prompt).with_columns(
        pl.col("record_ids").list.first().alias("record_id")
    )
    joined = made.drop("format").join(
        drafts.select("record_id", "document", "format", "place", "heading"), on="record_id", how="left"
    )
    provenance = joined.select(pl.col("document").alias("record_id"), *list(PROVENANCE)[1:])
    examples = joined.with_columns(pl.concat_list("document").alias("record_ids")).select(
        column for column in made.columns if column != "record_id"
    )
    return examples, provenance.sort("record_id", "example_id")
