"""The lineage of a version: for every record, the examples made of it, or the stage that dropped it; and how
many records came from which source, under which licence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from tunewheel_retrieval.injections import PROMPT_INJECTION, injected

from tunewheel_curate.cleaning.redaction import CUT
from tunewheel_curate.passages.adding import Shown
from tunewheel_curate.stage import dropped_frame
from tunewheel_curate.step import Kind, Lane

LINEAGE_COLUMNS = (
    "record_id", "source_event_id", "source_id", "kind", "validated_by", "validated_at", "example_id",
    "stage", "reason", "duplicate_of", "flags", "format", "place",
)  # fmt: skip
RECORD_COLUMNS = LINEAGE_COLUMNS[:6]
"""The columns that describe the record. The other columns say what became of it."""
PASSAGE = "passage"
"""The ``format`` of a row about a passage in the prompt of an example."""


def lineage_of(
    distinct: pl.DataFrame, documents: pl.DataFrame, lanes: Mapping[Kind, Lane], shown: Shown | None = None
) -> pl.DataFrame:
    """Return rows of ``LINEAGE_COLUMNS`` for the ``distinct`` records, the ``documents`` among them.

    A record has one row. A document has one row per example made of it, whose ``place`` is the heading path,
    page or lines; and one row per training row with a passage of it in the prompt, whose ``format`` is
    ``PASSAGE`` and whose ``place`` is the heading. If cleaning cut anything
    from an example's question, answer or history, the column ``cut`` has the redacted text, so that a person
    can see whether a cut went too far.
    """
    answers, drafts = lanes[Kind.ANSWER], lanes.get(Kind.DOCUMENT)
    dropped = pl.concat(
        stage.dropped.with_columns(pl.lit(stage.name).alias("stage")) for stage in answers.stages
    )
    flags = next(stage.kept for stage in answers.stages if stage.name == "cleaning").select(
        "record_id", "flags"
    )
    columns = ("example_id", "format", "place", CUT)
    used = answers.rows.select("record_id", *columns)
    if drafts is not None:
        used = pl.concat([used, drafts.rows.select(pl.col("document").alias("record_id"), *columns)])
        ids = documents["record_id"]
        unused = ids.filter(~ids.is_in(drafts.rows["document"].implode()))
        unused = dropped_frame(unused, pl.Series(["no_examples"] * len(unused), dtype=pl.String))
        others = dropped.filter(~pl.col("record_id").is_in(ids.implode()))
        dropped = pl.concat([others, unused.with_columns(pl.lit("documents").alias("stage"))])
        marked = documents.filter(injected(pl.col("input")))["record_id"].to_frame()
        flags = pl.concat([flags, marked.with_columns(pl.lit(PROMPT_INJECTION).alias("flags"))])
    rows = (
        distinct.select(RECORD_COLUMNS)
        .join(used, on="record_id", how="left")
        .join(dropped, on="record_id", how="left")
        .join(flags, on="record_id", how="left")
        .select(*LINEAGE_COLUMNS, CUT)
    )
    if not rows[CUT].count():
        rows = rows.drop(CUT)
    if shown is not None:
        rows = pl.concat([rows, _shown(shown, distinct, rows)], how="diagonal")
    return rows.sort("record_id", "example_id")


def _shown(shown: Shown, distinct: pl.DataFrame, lineage: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each record with a passage in the prompt of an example that was not made of that
    record. A later withdrawal or erasure of the record finds the example by this row."""
    both = ["record_id", "example_id"]
    new = shown.origins.join(lineage.select(both), on=both, how="anti")
    rows = new.join(distinct.select(RECORD_COLUMNS), on="record_id", how="left")
    missing = [name for name in LINEAGE_COLUMNS if name not in rows.columns]
    return rows.with_columns(
        pl.lit(PASSAGE).alias(name) if name == "format" else pl.lit(None, dtype=pl.String).alias(name)
        for name in missing
    ).select(LINEAGE_COLUMNS)


LICENCE_ATTRIBUTES = ("license", "licence")
SOURCE_ATTRIBUTES = ("source", "origin", "channel")


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Records of one kind, source and licence, and how many of them are in the version."""

    kind: str
    source: str
    """The attribute ``source``, ``origin`` or ``channel``; empty where the record has none."""
    licence: str
    """The attribute ``license``; empty where the record has none."""
    records: int
    used: int


def count_sources(records: pl.DataFrame, used: pl.DataFrame) -> tuple[SourceCount, ...]:
    """Return the sorted sources of the distinct ``records``; ``used`` are the version's examples."""
    in_use = used["record_ids"].explode().drop_nulls().unique()
    seen: Counter[tuple[str, str, str]] = Counter()
    taken: Counter[tuple[str, str, str]] = Counter()
    rows = records.select("kind", "attributes", used=pl.col("record_id").is_in(in_use.implode()))
    alike = rows.group_by("kind", "attributes").agg(pl.len().alias("records"), pl.col("used").sum())
    for kind, attributes, count, in_version in alike.iter_rows():
        named = json.loads(attributes or "{}")
        key = (kind, _first(named, SOURCE_ATTRIBUTES), _first(named, LICENCE_ATTRIBUTES))
        seen[key] += count
        taken[key] += in_version
    return tuple(SourceCount(*key, records=seen[key], used=taken[key]) for key in sorted(seen))


def _first(attributes: dict[str, str], names: tuple[str, ...]) -> str:
    return next((attributes[name] for name in names if attributes.get(name)), "")
