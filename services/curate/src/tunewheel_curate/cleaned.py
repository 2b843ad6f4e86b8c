"""Cleans records stage by stage: drops the unusable, invalid and repeated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.rules import rule_complaints

from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.duplicates.questions import drop_exact_duplicates, settle_near_duplicates
from tunewheel_curate.duplicates.semantics import settle_semantic_duplicates
from tunewheel_curate.evaluation.benchmarks import Overlap
from tunewheel_curate.examples.formatting import asked_text
from tunewheel_curate.examples.output_validation import validate_outputs
from tunewheel_curate.examples.preparation import cleaning, fitting
from tunewheel_curate.holdout.memory import ComparedRecords
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY
from tunewheel_curate.inputs import Pinned
from tunewheel_curate.labels.conflicts import drop_conflicts
from tunewheel_curate.labels.quality import Quality
from tunewheel_curate.labels.review import (
    answer_conflicting,
    conflicting,
    near_answer_conflicting,
    off_schema,
    review_list,
    suspected,
)
from tunewheel_curate.labels.suspects import find_suspects
from tunewheel_curate.records.selection import select_usable
from tunewheel_curate.similarity.near_index import NearIndex
from tunewheel_curate.similarity.pairs import SimilarPairs, pairs_among
from tunewheel_curate.stage import Stage, drop, without_texts


@dataclass(frozen=True)
class Cleaned:
    """The result of cleaning: every stage, and what later steps need from them."""

    stages: list[Stage]
    unusable: pl.DataFrame
    """What ``select_usable`` dropped, with reasons. Documents and answers rated down among it go on to stages
    of their own."""
    compared: ComparedRecords
    pairs: SimilarPairs
    """The remaining similar pairs, as positions in the records that the last stage kept."""
    near_index: NearIndex
    review: list[pl.DataFrame]
    semantic: SemanticReport | None

    @property
    def survivors(self) -> pl.DataFrame:
        return self.stages[-1].kept

    def quality(self, spec: ProjectSpec, overlaps: Sequence[Overlap]) -> Quality:
        """Return the findings that people should review."""
        suspects = find_suspects(self.survivors, spec.dataset.label_review)
        review = review_list([*self.review, suspected(self.survivors, suspects.found)])
        told = tuple(overlap.report for overlap in overlaps)
        return Quality(review=review, suspects=suspects, contamination=told, semantic=self.semantic)


def clean(distinct: pl.DataFrame, spec: ProjectSpec, known: NearIndex, pinned: Pinned) -> Cleaned:
    """Drop the unusable, invalid and repeated records of ``distinct``.

    Raises:
        InvalidSpec: the spec is faulty.
    """
    dataset, stages = spec.dataset, [select_usable(distinct)]
    unusable = stages[-1].dropped
    for step in cleaning(spec, secret=pinned.secret):
        _follow(stages, step(stages[-1].kept))
    redacted = stages[-1].kept
    _follow(stages, validate_outputs(redacted, spec.task, dataset.cleaning))
    review = [off_schema(redacted, stages[-1], spec.task)]
    if spec.task.output_rules:
        _follow(stages, check_rules(stages[-1].kept, spec.task.output_rules))
    for step in fitting(spec, pinned.tokens):
        _follow(stages, step(stages[-1].kept))
    keyed = _with_key(stages[-1].kept)
    _follow(stages, drop_conflicts(keyed))
    compared = stages[-1].kept
    review += [conflicting(keyed, stages[-1]), answer_conflicting(compared, spec.task)]
    _follow(stages, drop_exact_duplicates(compared))
    singles = stages[-1].kept
    near = settle_near_duplicates(
        singles, spec.task, threshold=dataset.near_duplicate_threshold, related=LEAK_SIMILARITY, known=known
    )
    review += [near.review, near_answer_conflicting(singles, near.alike, spec.task)]
    for stage in near.stages:
        _follow(stages, stage)
    pairs, report = near.pairs, None
    if dataset.semantic_duplicates.enabled:
        pairs, report = _settle_semantics(stages, pairs, spec)
    gave_way = pl.concat([stage.dropped for stage in stages])
    return Cleaned(stages, unusable, ComparedRecords(compared, gave_way), pairs, near.index, review, report)


def _settle_semantics(
    stages: list[Stage], pairs: SimilarPairs, spec: ProjectSpec
) -> tuple[SimilarPairs, SemanticReport]:
    """Append the stage that drops records with the same meaning. Return the remaining similar pairs,
    including those of this stage."""
    before = stages[-1].kept
    semantic = settle_semantic_duplicates(before, spec.dataset.semantic_duplicates, spec.task)
    if semantic.stage is not None:
        _follow(stages, semantic.stage)
    names, left = before["record_id"].to_list(), stages[-1].kept["record_id"].to_list()
    return pairs_among(pairs.joined(semantic.pairs), names, left), semantic.report


def _follow(stages: list[Stage], stage: Stage) -> None:
    """Append ``stage``, and drop the texts of the stage before it."""
    stages[-1] = without_texts(stages[-1])
    stages.append(stage)


def _with_key(records: pl.DataFrame) -> pl.DataFrame:
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    return records.with_columns(comparison_keys(pl.Series("key", asked, dtype=pl.String)))


def check_rules(records: pl.DataFrame, rules: Sequence[OutputRule]) -> Stage:
    """Drop answers that break a rule. Reasons: ``<name of the first broken rule>: <what is wrong>``.

    Raises:
        InvalidSpec: a pattern that the engine does not know.
    """
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    reasons: list[str | None] = [None] * records.height
    for rule, complaints in zip(
        rules, rule_complaints(rules, records["output"].to_list(), asked), strict=True
    ):
        for row, complaint in enumerate(complaints):
            if complaint is not None and reasons[row] is None:
                reasons[row] = f"{rule.name or rule.rule}: {complaint}"
    return drop("output_rules", records, pl.Series(reasons, dtype=pl.String))
