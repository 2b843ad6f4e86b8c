"""Which records count: one copy of each, the newest of each source, those with something to learn from.

The rules look only at what the records say and at the time their event bears, never at where Kafka put
them, so any order and any split over partitions selects the same records:

1. Of several copies of one ``record_id`` the most trusted counts, then the earliest published: of those
   since another record of its source was. A source that went back to what it said before says it anew.
2. Of several records of one source (same kind and ``source_id``) the newest counts: the latest by what they
   say of themselves (a ticket when it was validated, others when they ``occurred``) where every one of them
   says so, then the higher trust, then the later published, then the greater ``record_id``. Where one says
   nothing, what the others say orders nothing: a file that came without a date must not lose to the dated
   one it replaces, nor the dated one to it. ingest publishes the versions of one source in
   their order, so "later published" is "later on the log" even where they lie on different partitions.
"""

from __future__ import annotations

import polars as pl

from tunewheel_curate.stage import RATED, RATED_DOWN, Stage, drop, trust_rank

TOLD = ("validated_at", "validated_by", "source_event_id", "attributes")
"""What lineage and card tell of a record, and its id does not follow from."""
SOURCE = ("kind", "source_id")


def distinct_records(records: pl.DataFrame) -> pl.DataFrame:
    """Return one row per ``record_id``, sorted by it (rule 1)."""
    ties = ["published_at", "occurred_at", "group", "title", "input", "output", *TOLD]
    current = records.join(_said_last(records), on="record_id", how="left")
    current = current.filter((pl.col("published_at") >= pl.col("_since")).fill_null(True)).drop("_since")
    ranked = current.with_columns(trust_rank().alias("_rank")).sort(
        ["record_id", "_rank", *ties],
        descending=[False, True, *(False for _ in ties)],
        nulls_last=True,
    )
    return ranked.unique("record_id", keep="first", maintain_order=True).drop("_rank")


def _said_last(records: pl.DataFrame) -> pl.DataFrame:
    """Return (record_id, _since): when its source began to say it, the last time that it did."""
    told = records.select(*SOURCE, "published_at", "record_id").sort(*SOURCE, "published_at", "record_id")
    begins = pl.col("record_id") != pl.col("record_id").shift().over(SOURCE)
    return (
        told.filter(begins.fill_null(True))
        .group_by("record_id")
        .agg(pl.col("published_at").max().alias("_since"))
    )


def _dated() -> pl.Expr:
    """When a version was made, by its own words; null where not every version of its source says so."""
    ticket = pl.col("kind") == "ticket"
    said = pl.when(ticket).then(pl.col("validated_at")).otherwise(pl.col("occurred_at"))
    return pl.when(said.is_not_null().all().over(SOURCE)).then(said)


def select_usable(records: pl.DataFrame) -> Stage:
    """Drop superseded records, documents, and records without an output (rule 2).

    ``records`` holds distinct ``record_id``s. Reasons: ``replaced``, ``document``, ``rated_down``,
    ``no_output``.
    """
    newest = (
        records.with_columns(trust_rank().alias("_rank"), _dated().alias("_dated"))
        .sort(
            ["_dated", "_rank", "published_at", "record_id"],
            descending=True,
            nulls_last=True,
        )
        .unique(SOURCE, keep="first", maintain_order=True)
        .select("record_id")
        .to_series()
    )
    rated_down = (pl.col("trust") == RATED) & pl.col("rejected_output").is_not_null()
    reason = (
        pl.when(~pl.col("record_id").is_in(newest.implode()))
        .then(pl.lit("replaced"))
        .when(pl.col("kind") == "document")
        .then(pl.lit("document"))
        .when(pl.col("output").is_null() & rated_down)
        .then(pl.lit(RATED_DOWN))
        .when(pl.col("output").is_null())
        .then(pl.lit("no_output"))
    )
    return drop("selection", records, reason)
