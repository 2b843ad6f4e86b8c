"""Negatives: answers that users rated down and nobody corrected. There is no better answer to prefer.

Negatives go through the stages of examples, except the check of the answer's form: a wrong form may be why
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

from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.evaluation.contamination import given_away
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import MESSAGE, asked_text, format_examples
from tunewheel_curate.examples.preparation import cleaning, fitting
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory, Seen
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY, Split
from tunewheel_curate.stage import RATED_DOWN, Stage, drop

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


def negatives_of(
    distinct: pl.DataFrame,
    unusable: pl.DataFrame,
    split: Split,
    *,
    spec: ProjectSpec,
    tokens: Tokens,
    secret: str,
    memory: HoldoutMemory,
    benchmarks: Sequence[BenchmarkTexts],
) -> Negatives | None:
    """Return the negatives among ``distinct`` records; None: no answer was rated down.

    ``unusable`` (``DROPPED_SCHEMA``) are the records that ``select_usable`` dropped. ``secret`` keys the
    pseudonyms. ``memory`` covers this version and all earlier ones. Reasons in the funnel, in addition to
    those of the stages: ``held_out``, ``contaminated: …``, ``accepted`` (another example trains on this
    answer as a right one), ``repeated``.
    """
    ids = unusable.filter(pl.col("reason") == RATED_DOWN)["record_id"]
    if ids.is_empty():
        return None
    handed = distinct.filter(pl.col("record_id").is_in(ids.implode()))
    stages = _prepared(handed, spec, tokens, secret)
    kept = stages[-1].kept
    stages.append(_away_from_holdout(kept, split, memory))
    examples = format_examples(stages[-1].kept, system_prompt=spec.task.system_prompt)
    texts = [*benchmarks, held_out_questions(split.holdout)]
    words = spec.dataset.contamination.words
    away = given_away(examples, texts, words=words, threshold=LEAK_SIMILARITY) if examples.height else {}
    right = {(_asked(turns), turns[-1]["content"]) for turns in split.train["messages"].to_list()}
    frame, refused = _rows(examples, away, right)
    reasons = refused + Counter(reason for stage in stages for reason in stage.dropped["reason"])
    funnel = FunnelStage(
        stage=STAGE, entered=handed.height, left=frame.height, reasons=dict(sorted(reasons.items()))
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


def _prepared(handed: pl.DataFrame, spec: ProjectSpec, tokens: Tokens, secret: str) -> list[Stage]:
    kept = handed.sort("record_id").with_columns(
        pl.col("rejected_output").alias("output"),
        pl.lit(None, dtype=pl.String).alias("rejected_output"),
        pl.lit(None, dtype=pl.String).alias("label"),
    )
    stages: list[Stage] = []
    for step in cleaning(spec, secret=secret):
        stages.append(step(kept))
        kept = stages[-1].kept
    for step in fitting(spec, tokens):
        stages.append(step(kept))
        kept = stages[-1].kept
    return stages


def _away_from_holdout(records: pl.DataFrame, split: Split, memory: HoldoutMemory) -> Stage:
    """Drop records whose question, source or group is or was held out."""
    asked = records.select("title", "input", "history").iter_rows()
    keys = [comparison_key(asked_text(*row)) for row in asked]
    keyed = records.with_columns(pl.Series("key", keys, dtype=pl.String))
    ids = [[record_id] for record_id in records["record_id"]]
    held = [memory.seen(marks) >= Seen.GROUP for marks in ComparedRecords(keyed).marks(ids)]
    reason = pl.when(pl.lit(pl.Series(held, dtype=pl.Boolean))).then(pl.lit("held_out"))
    return drop("holdout", records, reason)


def _asked(turns: Sequence[dict[str, str]]) -> str:
    return "\n\n".join(turn["content"] for turn in turns[:-1] if turn["role"] != "system")
