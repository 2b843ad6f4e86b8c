"""Preference pairs: a prompt, the answer to prefer (chosen), and the answer to avoid (rejected).

Pairs come from corrections and negative examples. The chosen answer went through all steps of examples. The
rejected answer is normalised and redacted too, but need not be valid: that may be what is wrong with it. A
pair belongs to the training side: its record, or the duplicate that replaced the record, is trained on. A
record that was dropped as a duplicate of a training example may still hold a question of the holdout, so the
search for leaks looks at pairs too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.identity import content_id

from tunewheel_curate.examples.formatting import MESSAGE
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.preferences.negatives import prompt_of
from tunewheel_curate.stage import RATED, Stage, drafted, drop, dropped_frame
from tunewheel_curate.step import Lane

PREFERENCE_SCHEMA: dict[str, pl.DataType] = {
    "pair_id": pl.String(),
    "prompt": pl.List(MESSAGE),
    "chosen": pl.String(),
    "rejected": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "record_id": pl.String(),
}
"""The columns of ``preferences.parquet``, as ``PreferencePair`` names them."""
TAKEN = ("title", "input", "history", "output", "rejected_output", "group", "trust")
"""The columns that a pair takes from the answer of its record."""


@dataclass(frozen=True)
class Preferences:
    """Pairs sorted by ``pair_id``, and the funnel of the rejected answers."""

    pairs: pl.DataFrame
    funnel: FunnelStage


def draft_pairs(distinct: pl.DataFrame) -> Lane | None:
    """Return a row for each of the ``distinct`` records with a ``rejected_output``; None: there is none."""
    offered = distinct.filter(_is_paired())
    return Lane(drafted(offered), one_stage="preferences") if offered.height else None


def _is_paired() -> pl.Expr:
    return pl.col("rejected_output").is_not_null() & (pl.col("trust") != RATED)


def take_answers(rows: pl.DataFrame, *, answers: pl.DataFrame) -> Stage:
    """Give each of ``rows`` the texts that its record has among ``answers``. Reason: ``record_dropped``
    (before records were compared; see the lineage)."""
    clean = answers.filter(_is_paired()).select("record_id", *TAKEN)
    kept = rows.select("record_id").join(clean, on="record_id", maintain_order="left")
    lost = rows.join(clean, on="record_id", how="anti")["record_id"]
    reasons = pl.Series(["record_dropped"] * len(lost), dtype=pl.String)
    return Stage("answers", kept, dropped_frame(lost, reasons))


def keep_trained(rows: pl.DataFrame, *, trained: Collection[str]) -> Stage:
    """Drop ``rows`` whose record is not ``trained`` on. Reason: ``held_out``."""
    trains = pl.col("record_id").is_in(list(trained))
    return drop("trained", rows, pl.when(~trains).then(pl.lit("held_out")))


def check_pairs(rows: pl.DataFrame, *, max_tokens: int, tokens: Tokens) -> Stage:
    """Name each pair by its content, in ``example_id``. Reasons: ``blank``, ``same_answer``, ``too_long``,
    ``repeated``."""
    talks = rows.select("messages", "rejected_output").rows()
    names = [content_id("pair", [turns[:-1], turns[-1]["content"], rejected]) for turns, rejected in talks]
    spoken = [[*(turn["content"] for turn in turns[:-1]), rejected] for turns, rejected in talks]
    named = rows.with_columns(
        pl.Series("example_id", names, dtype=pl.String),
        pl.Series("_tokens", tokens.conversation_sizes(spoken), dtype=pl.Int64),
    )
    rejected = pl.col("rejected_output")
    reason = (
        pl.when(rejected == "")
        .then(pl.lit("blank"))
        .when(rejected == pl.col("messages").list.last().struct["content"])
        .then(pl.lit("same_answer"))
        .when(pl.col("_tokens") > max_tokens)
        .then(pl.lit("too_long"))
        .when(~pl.col("example_id").is_first_distinct())
        .then(pl.lit("repeated"))
    )
    return drop("pairs", named, reason)


def preferences_of(lane: Lane) -> Preferences:
    """Return the pairs that the rows of ``lane`` are."""
    columns = {
        "pair_id": "example_id", "rejected": "rejected_output",
        "chosen": pl.col("messages").list.last().struct["content"],
    }  # fmt: skip
    pairs = lane.rows.with_columns(prompt=prompt_of(), **columns).select(*PREFERENCE_SCHEMA).sort("pair_id")
    (funnel,) = lane.funnel
    return Preferences(pairs, funnel)
