"""From records without exact duplicates to records without near ones, labels in doubt put aside first."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.duplicates.answers import answered_alike
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
    """Those that ask nearly the same, as positions in what came in."""
    review: pl.DataFrame
    index: NearIndex


def settle_near_duplicates(
    singles: pl.DataFrame, task: TaskSpec, *, threshold: float, related: float, known: NearIndex
) -> NearOutcome:
    """Drop those of ``singles`` (columns ``key``, ``label`` and ``output``) that repeat another, or that
    somebody more trusted contradicts.

    ``threshold`` is the similarity from which two texts are nearly the same, ``related`` the one from which
    ``pairs`` are told. Nearly equal inputs repeat each other where their answers do, see ``answered_alike``.
    ``known`` spares work and changes nothing.
    """
    pairs, index = near_pairs(singles["key"], minimum=min(threshold, related), known=known)
    near = pairs.at_least(threshold)
    names = singles["record_id"].to_list()
    agreed = drop_near_conflicts(singles, near)
    among = pairs_among(near, names, agreed.kept["record_id"].to_list())
    repeated = answered_alike(agreed.kept, among, task, threshold=threshold)
    single = drop_near_duplicates(agreed.kept, repeated)
    return NearOutcome(
        stages=(agreed, single),
        pairs=pairs_among(pairs, names, single.kept["record_id"].to_list()),
        alike=near,
        review=near_conflicting(singles, near),
        index=index,
    )
