"""Drops near-duplicates, after records whose labels contradict more trusted ones."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.duplicates.exact import drop_near_duplicates
from tunewheel_curate.labels.conflicts import agreeing, drop_near_conflicts
from tunewheel_curate.labels.review import near_conflicting
from tunewheel_curate.similarity.near_index import NearIndex
from tunewheel_curate.similarity.pairs import SimilarPairs, components, near_pairs, pairs_among
from tunewheel_curate.stage import Stage

ANSWERED_OTHERWISE = "answered_otherwise"
"""Records that stay although they ask nearly the same as another one, because the answers differ."""


@dataclass(frozen=True)
class NearOutcome:
    """The stages, the review list, the remaining pairs, and the index for the next build."""

    stages: tuple[Stage, ...]
    pairs: SimilarPairs
    """The remaining similar pairs, as positions in the records that the last stage kept."""
    alike: SimilarPairs
    """The pairs with nearly the same question, as positions in ``singles``."""
    review: pl.DataFrame
    index: NearIndex


def settle_near_duplicates(
    singles: pl.DataFrame, task: TaskSpec, *, threshold: float, related: float, known: NearIndex
) -> NearOutcome:
    """Drop the records in ``singles`` (columns ``key``, ``label`` and ``output``) that repeat another record,
    or that a more trusted record contradicts.

    Two texts are nearly the same from the similarity ``threshold`` on. Two records are duplicates if their
    inputs are nearly the same and their answers say the same (``answered_alike``). The returned ``pairs``
    have at least the similarity ``related``. ``known`` saves time and does not change the result.
    """
    pairs, index = near_pairs(singles["key"], minimum=min(threshold, related), known=known)
    near = pairs.at_least(threshold)
    names = singles["record_id"].to_list()
    agreed = drop_near_conflicts(singles, near)
    among = pairs_among(near, names, agreed.kept["record_id"].to_list())
    repeated = answered_alike(agreed.kept, among, task)
    single = drop_near_duplicates(agreed.kept, repeated)
    by_question = {*components(agreed.kept.height, agreeing(agreed.kept, among))}
    single.counts[ANSWERED_OTHERWISE] = single.kept.height - len(by_question)
    return NearOutcome(
        stages=(agreed, single),
        pairs=pairs_among(pairs, names, single.kept["record_id"].to_list()),
        alike=near,
        review=near_conflicting(singles, near),
        index=index,
    )
