"""Negatives: answers that users rated down and nobody corrected. There is no better answer to prefer.

Negatives go through the row steps of answers, except the check of the answer's form: a wrong form may be why
the answer was rated down. No negative is about a question that is or was held out, about one that resembles
it, or about one that resembles a benchmark's question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id

from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.evaluation.contamination import given_away
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import MESSAGE, format_examples
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory, Seen
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY, Split
from tunewheel_curate.stage import Stage, drop
from tunewheel_curate.step import Lane

STAGE = "negatives"
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


def draft_negatives(rated_down: pl.DataFrame) -> Lane:
    """Return the drafts of ``rated_down`` records, whose ``rejected_output`` becomes the output."""
    nothing = pl.lit(None, dtype=pl.String)
    return Lane(
        rated_down.with_columns(
            pl.col("rejected_output").alias("output"),
            nothing.alias("rejected_output"),
            nothing.alias("label"),
        )
    )


def negatives_of(
    drafts: Lane,
    split: Split,
    *,
    spec: ProjectSpec,
    memory: HoldoutMemory,
    benchmarks: Sequence[BenchmarkTexts],
) -> Negatives:
    """Return the negatives of a version.

    ``memory`` covers this version and all earlier ones. Reasons in the funnel, in addition to those of the
    steps: ``held_out``, ``contaminated: …``, ``accepted`` (another example trains on this answer as a right
    one), ``repeated``.
    """
    new = _away_from_holdout(drafts.rows, memory)
    stages = [*drafts.stages, new]
    examples = format_examples(new.kept, system_prompt=spec.task.system_prompt)
    texts = [*benchmarks, held_out_questions(split.holdout)]
    words = spec.dataset.contamination.words
    away = given_away(examples, texts, words=words, threshold=LEAK_SIMILARITY)
    right = {(_asked(turns), turns[-1]["content"]) for turns in split.train["messages"].to_list()}
    frame, refused = _rows(examples, away, right)
    reasons = refused + Counter(reason for stage in stages for reason in stage.dropped["reason"])
    funnel = FunnelStage(
        stage=STAGE,
        entered=stages[0].funnel.entered,
        left=frame.height,
        reasons=dict(sorted(reasons.items())),
    )
    return Negatives(frame, funnel)


def _rows(
    examples: pl.DataFrame, away: Mapping[int, str], right: Collection[tuple[str, str]]
) -> tuple[pl.DataFrame, Counter[str]]:
    rows: dict[str, dict[str, object]] = {}
    reasons: Counter[str] = Counter()
    for number, example in enumerate(examples.iter_rows(named=True)):
        turns = example["messages"]
        prompt, rejected, name = turns[:-1], turns[-1]["content"], content_id("neg", turns)
        reason = away.get(number)
        if reason is None and (_asked(turns), rejected) in right:
            reason = "accepted"
        elif reason is None and name in rows:
            reason = "repeated"
        if reason is not None:
            reasons[reason] += 1
            continue
        told = {"negative_id": name, "prompt": prompt, "rejected": rejected, "group": example["group"]}
        rows[name] = told | {"trust": example["trust"], "record_id": example["record_ids"][0]}
    return pl.DataFrame([rows[name] for name in sorted(rows)], schema=NEGATIVE_SCHEMA), reasons


def _away_from_holdout(records: pl.DataFrame, memory: HoldoutMemory) -> Stage:
    """Drop records whose question, source or group is or was held out."""
    ids = [[record_id] for record_id in records["record_id"]]
    held = [memory.seen(marks) >= Seen.GROUP for marks in ComparedRecords(records).marks(ids)]
    reason = pl.when(pl.lit(pl.Series(held, dtype=pl.Boolean))).then(pl.lit("held_out"))
    return drop("holdout", records, reason)


def _asked(turns: Sequence[dict[str, str]]) -> str:
    return "\n\n".join(turn["content"] for turn in turns[:-1] if turn["role"] != "system")
