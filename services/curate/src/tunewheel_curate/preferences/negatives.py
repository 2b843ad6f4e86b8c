"""Negatives: answers that users rated down and nobody corrected. There is no better answer to prefer.

Negatives go through the row steps of answers, except the check of the answer's form: a wrong form may be why
the answer was rated down. No negative is about a question that is or was held out, about one that resembles
it, or about one that resembles a benchmark's question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage

from tunewheel_curate.examples.formatting import MESSAGE
from tunewheel_curate.stage import Stage, drafted, drop
from tunewheel_curate.step import Lane

NEGATIVE_SCHEMA: dict[str, pl.DataType] = {
    "negative_id": pl.String(),
    "prompt": pl.List(MESSAGE),
    "rejected": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "record_id": pl.String(),
}
"""The columns of ``negatives.parquet``, as ``Negative`` names them."""


@dataclass(frozen=True)
class Negatives:
    """Rows sorted by ``negative_id``, and the funnel of the answers that were rated down."""

    rows: pl.DataFrame
    funnel: FunnelStage


def draft_negatives(rated_down: pl.DataFrame) -> Lane | None:
    """Return the drafts of ``rated_down`` records, whose ``rejected_output`` becomes the output."""
    if rated_down.is_empty():
        return None
    nothing = pl.lit(None, dtype=pl.String)
    rows = rated_down.with_columns(
        pl.col("rejected_output").alias("output"), nothing.alias("rejected_output")
    )
    return Lane(drafted(rows), one_stage="negatives")


def drop_accepted(rows: pl.DataFrame, *, trained: pl.Series) -> Stage:
    """Drop ``rows`` (with ``messages`` and ``example_id``) whose answer is right in one of the ``trained``
    conversations, and repetitions. Reasons: ``accepted``, ``repeated``."""
    right = {(_asked(turns), turns[-1]["content"]) for turns in trained.to_list()}
    accepted = [(_asked(turns), turns[-1]["content"]) in right for turns in rows["messages"].to_list()]
    reason = pl.when(pl.Series(accepted, dtype=pl.Boolean)).then(pl.lit("accepted"))
    again = pl.when(~pl.col("example_id").is_first_distinct()).then(pl.lit("repeated"))
    return drop("accepted", rows, rows.select(reason.otherwise(again).alias("reason")).to_series())


def negatives_of(lane: Lane) -> Negatives:
    """Return the negatives that the rows of ``lane`` are."""
    columns = {"negative_id": "example_id", "rejected": pl.col("messages").list.last().struct["content"]}
    rows = lane.rows.with_columns(prompt=prompt_of(), **columns).select(*NEGATIVE_SCHEMA).sort("negative_id")
    (funnel,) = lane.funnel
    return Negatives(rows, funnel)


def prompt_of() -> pl.Expr:
    """Return the turns before the answer."""
    return pl.col("messages").list.head(pl.col("messages").list.len() - 1)


def _asked(turns: Sequence[dict[str, str]]) -> str:
    return "\n\n".join(turn["content"] for turn in turns[:-1] if turn["role"] != "system")
