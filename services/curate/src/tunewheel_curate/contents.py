"""The content of a version: training rows, holdout, preference pairs, negatives and general data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.preferences.negatives import Negatives, negatives_of
from tunewheel_curate.preferences.pairs import Preferences, preference_pairs
from tunewheel_curate.replay.mixing import Replayed, choose_replay
from tunewheel_curate.step import Lane


@dataclass(frozen=True)
class Contents:
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


def complete(
    split: Split,
    distinct: pl.DataFrame,
    compared: ComparedRecords,
    rated_down: Lane | None,
    *,
    spec: ProjectSpec,
    inputs: Inputs,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> Contents:
    """Add preference pairs, negatives and general data to ``split``; no row overlaps ``benchmarks``.

    ``distinct`` are all records; ``rated_down`` are the drafts of negatives.
    """
    held = compared.marks(split.holdout["record_ids"].to_list())
    trained = compared.trained(split.train["record_ids"].to_list())
    memory = inputs.memory.extended(held, trained)
    preferences = preference_pairs(distinct, compared, split, spec, inputs.pinned.tokens)
    replayed = None
    if inputs.replay is not None and spec.dataset.replay is not None:
        replayed = choose_replay(
            inputs.replay, spec.dataset.replay, split, spec.dataset, memory=memory,
            tokens=inputs.pinned.tokens, benchmarks=benchmarks,
        )  # fmt: skip
    negatives = rated_down and negatives_of(
        rated_down, split, spec=spec, memory=memory, benchmarks=benchmarks
    )
    funnel = tuple(part.funnel for part in (preferences, negatives, replayed) if part is not None)
    if replayed is not None:
        train = pl.concat([split.train, replayed.examples]).sort("example_id")
        split = Split(train, split.holdout, split.neither)
    return Contents(split, funnel, memory, preferences, negatives, replayed)
