"""From records without exact duplicates to records without near ones, contradictions put aside first."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tunewheel_curate.duplicates.exact import drop_near_duplicates
from tunewheel_curate.labels.conflicts import drop_near_conflicts
from tunewheel_curate.labels.review import near_conflicting
from tunewheel_curate.similarity.near_index import NearIndex
from tunewheel_curate.similarity.pairs import SimilarPairs, near_pairs, pairs_among
from tunewheel_curate.stage import Stage


@dataclass(frozen=True)
class NearOutcome:
    """What is left, what was found, and what spares the next build finding it again."""

    stages: tuple[Stage, ...]
    pairs: SimilarPairs
    """Similar pairs left, as positions in what the last stage kept."""
    alike: SimilarPairs
    """Those that count as one, as positions in what came in."""
    review: pl.DataFrame
    index: NearIndex


def settle_near_duplicates(
    singles: pl.DataFrame, *, threshold: float, related: float, known: NearIndex
) -> NearOutcome:
    """Drop those of ``singles`` (columns ``key`` and ``label``) that contradict or repeat another.

    ``threshold`` is the similarity from which two inputs count as one, ``related`` the one from which
    ``pairs`` are told. ``known`` spares work and changes nothing.
    """
    pairs, index = near_pairs(singles["key"], minimum=min(threshold, related), known=known)
    near = pairs.at_least(threshold)
    names = singles["record_id"].to_list()
    agreed = drop_near_conflicts(singles, near)
    among = pairs_among(near, names, agreed.kept["record_id"].to_list())
    single = drop_near_duplicates(agreed.kept, among)
    return NearOutcome(
        stages=(agreed, single),
        pairs=pairs_among(pairs, names, single.kept["record_id"].to_list()),
        alike=near,
        review=near_conflicting(singles, near),
        index=index,
    )
