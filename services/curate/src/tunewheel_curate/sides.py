"""Splits examples into a training side and a holdout, and removes those that may be on neither.

``part`` splits; it respects what earlier versions held out. After examples that overlap a benchmark were
removed (``evaluation/contamination.py``), ``complete`` adds preference pairs, negatives and general data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
from tunewheel_contracts.events.data import Trust
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import HELD_OUT_BEFORE, RETIRED, ComparedRecords, HoldoutMemory
from tunewheel_curate.holdout.splitting import Split, split_examples
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.preferences.negatives import Negatives, negatives_of
from tunewheel_curate.preferences.pairs import Preferences, preference_pairs
from tunewheel_curate.replay.mixing import Replayed, choose_replay
from tunewheel_curate.similarity.pairs import SimilarPair
from tunewheel_curate.stage import RATED, Stage, dropped_frame


@dataclass(frozen=True)
class Sides:
    """The content of a version. ``split`` includes the replayed examples; ``funnel`` has the stages of
    preference pairs, negatives and replay."""

    split: Split
    funnel: tuple[FunnelStage, ...]
    memory: HoldoutMemory
    """What this version and all earlier ones held out."""
    preferences: Preferences | None
    """None: no record has a rejected answer."""
    negatives: Negatives | None
    """None: no answer was rated down, or ``dataset.ratings`` is off."""
    replayed: Replayed | None


def part(
    examples: pl.DataFrame,
    pairs: Sequence[SimilarPair],
    compared: ComparedRecords,
    *,
    spec: ProjectSpec,
    memory: HoldoutMemory,
    secret: str = "",
) -> tuple[Split, Stage]:
    """Split ``examples``; ``pairs`` are positions in them.

    ``secret`` keys the pseudonyms, by which the memory knows retired groups. The stage drops the examples
    that may be on neither side. Reasons: ``held_out_before``; ``holdout_retired``; its trust for an
    answer of a held-out group that may not be judged by (``dataset.holdout_trust``).
    """
    ids = examples["record_ids"].to_list()
    seen = [memory.seen(marks) for marks in compared.marks(ids)] if memory.marks else []
    retired = _retired(examples, memory, spec.project, secret)
    askable = _askable(examples, spec)
    split = split_examples(
        examples,
        pairs,
        holdout=spec.dataset.holdout_fraction,
        seen=seen,
        retired=retired,
        askable=examples["trust"].is_in(askable).to_list(),
    )
    # What an earlier version held out stays held out as long as nothing better is.
    held = split.holdout.filter(pl.col("trust").is_in(askable))
    held = held if held.height else split.holdout.filter(pl.col("trust") == Trust.UNVERIFIED.value)
    left_out = split.holdout.join(held, on="example_id", how="anti")
    resting = pl.col("example_id").is_in(
        examples["example_id"].filter(pl.Series(retired, dtype=pl.Boolean)).implode()
    )
    lost = pl.concat(
        [
            _lost(split.neither.filter(~resting), HELD_OUT_BEFORE),
            _lost(split.neither.filter(resting), RETIRED),
            *(_lost(rows, str(trust)) for (trust,), rows in sorted(left_out.group_by("trust"))),
        ]
    )
    split = replace(split, holdout=held)
    stage = Stage(
        name="split",
        kept=pl.concat([split.train, split.holdout]),
        dropped=lost,
    )
    return split, stage


def _askable(examples: pl.DataFrame, spec: ProjectSpec) -> tuple[str, ...]:
    """Return the trust of the answers that may be held out: what the spec says, or else unverified ones."""
    wanted = spec.dataset.holdout_trust
    return wanted if examples["trust"].is_in(wanted).any() else (Trust.UNVERIFIED.value,)


def _retired(examples: pl.DataFrame, memory: HoldoutMemory, project: str, secret: str) -> list[bool]:
    """Return for each example whether its group is retired."""
    names = Pseudonyms(project, secret)
    groups = examples["group"].unique()
    resting = {group for group in groups if memory.retired(names.of("group", group))}
    return [group in resting for group in examples["group"]]


def _lost(examples: pl.DataFrame, reason: str) -> pl.DataFrame:
    ids = examples["record_ids"].explode().drop_nulls()
    return dropped_frame(ids, pl.Series([reason] * len(ids), dtype=pl.String))


def complete(
    split: Split,
    distinct: pl.DataFrame,
    compared: ComparedRecords,
    unusable: pl.DataFrame,
    *,
    spec: ProjectSpec,
    inputs: Inputs,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> Sides:
    """Add preference pairs, negatives and general data to ``split``; no row overlaps ``benchmarks``.

    ``distinct`` are all records; ``unusable`` (``DROPPED_SCHEMA``) are those that ``select_usable`` dropped.
    """
    held = compared.marks(split.holdout["record_ids"].to_list())
    trained = compared.trained(split.train["record_ids"].to_list())
    memory = inputs.memory.extended(held, trained)
    preferences = _preferences(distinct, compared, split, spec, inputs.pinned.tokens)
    replayed = _replayed(split, spec, inputs, memory, benchmarks)
    negatives = negatives_of(
        distinct,
        unusable,
        split,
        spec=spec,
        tokens=inputs.pinned.tokens,
        secret=inputs.pinned.secret,
        memory=memory,
        benchmarks=benchmarks,
    )
    funnel = tuple(side.funnel for side in (preferences, negatives, replayed) if side is not None)
    if replayed is not None:
        train = pl.concat([split.train, replayed.examples]).sort("example_id")
        split = Split(train, split.holdout, split.neither)
    return Sides(split, funnel, memory, preferences, negatives, replayed)


def _preferences(
    distinct: pl.DataFrame,
    compared: ComparedRecords,
    split: Split,
    spec: ProjectSpec,
    tokens: Tokens,
) -> Preferences | None:
    paired = pl.col("rejected_output").is_not_null() & (pl.col("trust") != RATED)
    offered = distinct.filter(paired)
    if offered.is_empty():
        return None
    members = compared.members(split.train["record_ids"].to_list())
    trained = {record_id for ids in members for record_id in ids}
    cleaned = compared.records.filter(paired)
    return preference_pairs(
        offered, cleaned, trained=trained, holdout=split.holdout, spec=spec, tokens=tokens
    )


def _replayed(
    split: Split,
    spec: ProjectSpec,
    inputs: Inputs,
    memory: HoldoutMemory,
    benchmarks: Sequence[BenchmarkTexts],
) -> Replayed | None:
    if inputs.replay is None or spec.dataset.replay is None:
        return None
    return choose_replay(
        inputs.replay,
        spec.dataset.replay,
        train=split.train,
        holdout=split.holdout,
        memory=memory,
        max_tokens=spec.dataset.max_tokens,
        tokens=inputs.pinned.tokens,
        benchmarks=benchmarks,
        words=spec.dataset.contamination.words,
    )
