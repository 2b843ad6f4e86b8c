"""What every stage of curation takes and gives: a frame of records in, fewer records and reasons out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.review import CORRECTED_IN_REVIEW

RECORD_SCHEMA: dict[str, pl.DataType] = {
    "project": pl.String(),
    "record_id": pl.String(),
    "kind": pl.String(),
    "source_id": pl.String(),
    "source_event_id": pl.String(),
    "title": pl.String(),
    "input": pl.String(),
    "output": pl.String(),
    "rejected_output": pl.String(),
    "rating": pl.String(),
    "rated_output": pl.String(),
    "history": pl.String(),
    "sections": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "validated_by": pl.String(),
    "validated_at": pl.Datetime("us", "UTC"),
    "occurred_at": pl.Datetime("us", "UTC"),
    "attributes": pl.String(),
    "event_id": pl.String(),
    "published_at": pl.Datetime("us", "UTC"),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
}
"""One row per delivery of ``record.ingested``. ``attributes``, ``history`` and ``sections`` are canonical
JSON (the latter two null where there are none), ``published_at`` is the event's ``ce_time``, ``partition``
and ``offset`` its place on the log."""

DROPPED_SCHEMA: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "reason": pl.String(),
    "duplicate_of": pl.String(),
}

RATED = "rated"
"""The trust in an answer that nobody but a user's thumb speaks for."""
TAUGHT = "taught"
"""The trust in an answer that a teacher gave to a prompt of production, and nobody validated."""
UNCHECKED = (RATED, TAUGHT)
"""What nobody checked is never held out: a model is not to be judged by what another one said."""
RATED_DOWN = "rated_down"
"""The reason by which ``select_usable`` hands answers to avoid over that come with nothing to prefer."""
TRUST_RANK = {RATED: -1, TAUGHT: -1, "unverified": 0, "corrected": 1, "expert": 2}


_CORRECTS = f'"{CORRECTED_IN_REVIEW}":'
"""As it stands in canonical JSON; in a value its quotes would be escaped."""


def trust_rank() -> pl.Expr:
    """Rank ``trust``; a level this version does not know counts least.

    An expert who corrected an answer in a review saw the other expert's: the correction counts more.
    """
    corrects = pl.col("attributes").str.contains(_CORRECTS, literal=True).fill_null(False)
    rank = pl.col("trust").replace_strict(TRUST_RANK, default=0, return_dtype=pl.Int32)
    return rank + (corrects & (pl.col("trust") == "expert")).cast(pl.Int32)


@dataclass(frozen=True)
class Stage:
    """The outcome of one stage.

    ``kept`` has the columns of what came in; ``dropped`` those of ``DROPPED_SCHEMA``, one row per record.
    ``counts`` holds figures that are no drops, such as redactions by entity.
    """

    name: str
    kept: pl.DataFrame
    dropped: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def funnel(self) -> FunnelStage:
        reasons = self.dropped.group_by("reason").len().sort("reason")
        return FunnelStage(
            stage=self.name,
            entered=self.kept.height + self.dropped.height,
            left=self.kept.height,
            reasons=dict(reasons.iter_rows()),
        )


def without_texts(stage: Stage) -> Stage:
    """Return ``stage`` with what the funnel and the lineage need of what it kept; the rest takes memory."""
    return replace(stage, kept=stage.kept.select(pl.col("^(record_id|flags)$")))


def drop(name: str, records: pl.DataFrame, reason: pl.Expr | pl.Series) -> Stage:
    """Split ``records`` by ``reason``: null keeps a record, a text drops it for that reason."""
    marked = records.with_columns(reason.alias("reason"))
    dropped = marked.filter(pl.col("reason").is_not_null())
    return Stage(
        name=name,
        kept=marked.filter(pl.col("reason").is_null()).drop("reason") if dropped.height else records,
        dropped=dropped_frame(dropped["record_id"], dropped["reason"]),
    )


def dropped_frame(
    record_ids: pl.Series, reasons: pl.Series, duplicates_of: pl.Series | None = None
) -> pl.DataFrame:
    """Assemble a frame of ``DROPPED_SCHEMA``."""
    other = pl.Series([None] * len(record_ids), dtype=pl.String) if duplicates_of is None else duplicates_of
    columns = {"record_id": record_ids, "reason": reasons, "duplicate_of": other}
    return pl.DataFrame(columns, schema=DROPPED_SCHEMA)
