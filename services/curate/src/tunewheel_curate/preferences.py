"""Answers to avoid: pairs with the better answer, and negatives, which were only rated down.

A *pair* is a prompt, the answer to prefer (chosen) and the answer to avoid (rejected). Pairs come from
corrections and negative examples. The chosen answer went through the row steps of answers. The rejected
answer is normalised and redacted too, but need not be valid: that may be what is wrong with it. A pair
belongs to the training side: its record, or the duplicate that replaced the record, is trained on. The search
for leaks looks at pairs too, because a duplicate of a training example may hold a held-out question.

A *negative* has no better answer, because nobody corrected it. Negatives go through the row steps of answers,
except the check of the answer's form: a wrong form may be why the answer was rated down. No negative is about
a question that is or was held out, about one that resembles it, or about a benchmark's question.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl
from tunewheel_contracts.identity import content_id

from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.stage import RATED, Stage, drafted, drop, dropped_frame
from tunewheel_curate.step import Lane

PAIR_COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "group", "trust", "record_id")
"""The columns of ``preferences.parquet``, as ``PreferencePair`` names them."""
NEGATIVE_COLUMNS = ("negative_id", "prompt", "rejected", "group", "trust", "record_id")
"""The columns of ``negatives.parquet``, as ``Negative`` names them."""
TAKEN = ("title", "input", "history", "output", "rejected_output", "group", "trust")
"""The columns that a pair takes from the answer of its record."""
_PROMPT = pl.col("messages").list.head(pl.col("messages").list.len() - 1)
_ANSWER = pl.col("messages").list.last().struct["content"]


def draft_pairs(distinct: pl.DataFrame) -> Lane | None:
    """Return a row for each of the ``distinct`` records with a ``rejected_output``; None: there is none."""
    offered = distinct.filter(_is_paired())
    return Lane(drafted(offered), one_stage="preferences") if offered.height else None


def draft_negatives(rated_down: pl.DataFrame) -> Lane | None:
    """Return the drafts of ``rated_down`` records, whose ``rejected_output`` becomes the output."""
    if rated_down.is_empty():
        return None
    nothing = pl.lit(None, dtype=pl.String).alias("rejected_output")
    rows = rated_down.with_columns(pl.col("rejected_output").alias("output"), nothing)
    return Lane(drafted(rows), one_stage="negatives")


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
    named = rows.with_columns(pl.Series("example_id", names, dtype=pl.String))
    sizes = pl.Series(tokens.conversation_sizes(spoken), dtype=pl.Int64)
    reason = (
        pl.when(pl.col("rejected_output") == "")
        .then(pl.lit("blank"))
        .when(pl.col("rejected_output") == _ANSWER)
        .then(pl.lit("same_answer"))
        .when(pl.lit(sizes) > max_tokens)
        .then(pl.lit("too_long"))
        .when(~pl.col("example_id").is_first_distinct())
        .then(pl.lit("repeated"))
    )
    return drop("pairs", named, reason)


def drop_accepted(rows: pl.DataFrame, *, trained: pl.Series) -> Stage:
    """Drop ``rows`` (with ``messages`` and ``example_id``) whose answer is right in one of the ``trained``
    conversations, and repetitions. Reasons: ``accepted``, ``repeated``."""
    right = set(map(_asked_and_answered, trained.to_list()))
    accepted = [_asked_and_answered(turns) in right for turns in rows["messages"].to_list()]
    reason = pl.when(pl.Series(accepted, dtype=pl.Boolean)).then(pl.lit("accepted"))
    again = pl.when(~pl.col("example_id").is_first_distinct()).then(pl.lit("repeated"))
    return drop("accepted", rows, reason.otherwise(again))


def pairs_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs that ``rows`` are (``PAIR_COLUMNS``), sorted by ``pair_id``."""
    renamed = {"pair_id": pl.col("example_id"), "rejected": pl.col("rejected_output")}
    pairs = rows.with_columns(prompt=_PROMPT, chosen=_ANSWER, **renamed)
    return pairs.select(PAIR_COLUMNS).sort("pair_id")


def negatives_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the negatives that ``rows`` are (``NEGATIVE_COLUMNS``), sorted by ``negative_id``."""
    named = rows.with_columns(prompt=_PROMPT, rejected=_ANSWER, negative_id=pl.col("example_id"))
    return named.select(NEGATIVE_COLUMNS).sort("negative_id")


def _is_paired() -> pl.Expr:
    return pl.col("rejected_output").is_not_null() & (pl.col("trust") != RATED)


def _asked_and_answered(turns: Sequence[dict[str, str]]) -> tuple[str, str]:
    asked = [turn["content"] for turn in turns[:-1] if turn["role"] != "system"]
    return "\n\n".join(asked), turns[-1]["content"]
