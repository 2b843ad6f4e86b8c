"""Curation from end to end: the records of a project and its spec in, a dataset version (or why not) out.

Pure and deterministic: the same set of records gives the same build, in whatever order and however often
they were delivered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.dataset import DatasetCounts, ExampleFormat, FunnelStage
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.documents.examples import DocumentExamples, add_documents, handed_over, with_documents
from tunewheel_curate.duplicates.exact import drop_exact_duplicates
from tunewheel_curate.duplicates.near import settle_near_duplicates
from tunewheel_curate.duplicates.semantics import settle_semantic_duplicates
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, Overlap, merged
from tunewheel_curate.evaluation.contamination import decontaminate
from tunewheel_curate.examples.conversations import asked_text
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA, format_examples
from tunewheel_curate.examples.output_rules import check_rules
from tunewheel_curate.examples.output_validation import validate_outputs
from tunewheel_curate.examples.preparation import cleaning, fitting
from tunewheel_curate.given import Given, Outside
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory
from tunewheel_curate.holdout.sessions import conversation_pairs
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY, Split
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
from tunewheel_curate.lineage import LINEAGE_COLUMNS, RECORD_COLUMNS, lineage_of
from tunewheel_curate.passages.adding import Shown, add_passages
from tunewheel_curate.preferences.negatives import Negatives
from tunewheel_curate.preferences.pairs import Preferences
from tunewheel_curate.records.ratings import with_ratings
from tunewheel_curate.records.selection import distinct_records, select_usable
from tunewheel_curate.records.sources import SourceCount, count_sources
from tunewheel_curate.records.taught import with_taught
from tunewheel_curate.records.withdrawals import drop_withdrawn
from tunewheel_curate.replay.mixing import Replayed
from tunewheel_curate.sides import Sides, complete, part
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.similarity.pairs import SimilarPairs, pairs_among
from tunewheel_curate.stage import Stage, without_texts


@dataclass(frozen=True)
class Build:
    """One build. ``rejections`` is empty for a version that may be published."""

    split: Split
    funnel: tuple[FunnelStage, ...]
    lineage: pl.DataFrame
    """Rows of ``LINEAGE_COLUMNS``; ``stage`` and ``reason`` where a record was dropped."""
    redactions: dict[str, int]
    """Personal data replaced, by entity."""
    counts: DatasetCounts
    rejections: tuple[str, ...]
    near_index: NearIndex
    """What spares the next build comparing these records again."""
    quality: Quality
    """What people should look at."""
    figures: dict[str, dict[str, int]] = field(default_factory=dict)
    """What else stages counted, by stage: what was cut, what was noticed."""
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    """Of what this version and all before it held out."""
    preferences: Preferences | None = None
    negatives: Negatives | None = None
    replayed: Replayed | None = None
    preliminary: str | None = None
    """Why the version is only a first try."""
    sources: tuple[SourceCount, ...] = ()
    outside: Outside = field(default_factory=Outside)
    extractive: int = 0
    """Questions about documents that no teacher asked."""
    shown: Shown | None = None
    """What the rows that train were given of the documents; None: they train without passages."""


@dataclass(frozen=True)
class _Cleaned:
    stages: list[Stage]
    unusable: pl.DataFrame
    """What ``select_usable`` dropped, and why: documents and answers rated down have stages of their own."""
    compared: ComparedRecords
    pairs: SimilarPairs
    """Similar pairs left, as positions in what the last stage kept."""
    near_index: NearIndex
    review: list[pl.DataFrame]
    semantic: SemanticReport | None


def build(
    records: pl.DataFrame,
    spec: ProjectSpec,
    given: Given | None = None,
    *,
    known: NearIndex | None = None,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> Build:
    """Curate ``records`` (``RECORD_SCHEMA``, one project) by ``spec``. What is wrong with the spec's own
    words is a rejection too.

    ``known`` is the ``near_index`` of an earlier build, or of none; it changes nothing but the time taken.
    ``benchmarks`` are what no example may give away.
    """
    given = given or Given()
    records = with_taught(with_ratings(records, wanted=spec.dataset.ratings))
    distinct = distinct_records(records)
    live = drop_withdrawn(records, given.withdrawals)
    try:
        cleaned = _clean(live.kept, spec, known or empty_index(), given.outside)
    except InvalidSpec as error:
        return refused(distinct, str(error))
    survivors = cleaned.stages[-1].kept
    examples = format_examples(survivors, system_prompt=spec.task.system_prompt)
    by_record = [ids[0] for ids in examples["record_ids"].to_list()]
    related = cleaned.pairs.joined(conversation_pairs(_as_received(survivors, live.kept)))
    moved = pairs_among(related, survivors["record_id"].to_list(), by_record)
    split, parting = part(
        examples, moved, cleaned.compared, spec=spec, memory=given.memory, secret=given.outside.secret
    )
    parted = decontaminate(
        split,
        benchmarks,
        spec.dataset.contamination,
        threshold=spec.dataset.near_duplicate_threshold,
        index=cleaned.near_index,
    )
    stages, examples = [live, *cleaned.stages, parting, parted.stage], parted.stage.kept
    handed = handed_over(live.kept, cleaned.unusable)
    documents = add_documents(handed, spec, given.outside, parted.split, benchmarks, memory=given.memory)
    both = with_documents(parted.split, documents)
    sides = complete(
        both, distinct, cleaned.compared, cleaned.unusable, spec=spec, given=given, benchmarks=benchmarks
    )
    sides, shown = _with_passages(sides, documents, live.kept, spec, given, benchmarks)
    split, own = sides.split, pl.concat([both.train, both.holdout])
    overlaps = merged([*parted.overlaps, *(documents.overlaps if documents is not None else ())])
    lineage = lineage_of(distinct, stages, examples, documents, shown)
    stages += documents.stages if documents is not None else ()
    counts = DatasetCounts(
        records=distinct.height,
        examples=own.height,
        train=split.train.height,
        holdout=split.holdout.height,
        replay=split.train.height + split.holdout.height - own.height,
        preferences=sides.preferences.pairs.height if sides.preferences else 0,
        negatives=sides.negatives.rows.height if sides.negatives else 0,
        formats=_by_format(split),
    )
    figures = {stage.name: stage.counts for stage in stages if stage.counts}
    return Build(
        split=split,
        funnel=(*(stage.funnel for stage in stages), *sides.funnel, *((shown.funnel,) if shown else ())),
        lineage=lineage,
        redactions=figures.get("redaction", {}),
        counts=counts,
        rejections=_rejections(examples, split, spec),
        near_index=cleaned.near_index,
        figures=figures,
        quality=_quality(survivors, cleaned, spec, overlaps),
        memory=sides.memory,
        preferences=sides.preferences,
        negatives=sides.negatives,
        replayed=sides.replayed,
        preliminary=_preliminary(examples.height, spec),
        sources=count_sources(distinct, own),
        outside=given.outside,
        extractive=documents.extractive if documents is not None else 0,
        shown=shown,
    )


def _with_passages(
    sides: Sides,
    documents: DocumentExamples | None,
    live: pl.DataFrame,
    spec: ProjectSpec,
    given: Given,
    benchmarks: Sequence[BenchmarkTexts],
) -> tuple[Sides, Shown | None]:
    """Put passages into the rows that train, last of all: what is compared before is what people wrote."""
    if given.index is None or not spec.trains_with_passages:
        return sides, None
    places = documents.places if documents is not None else {}
    records = frozenset(live["record_id"])
    tokens = given.outside.tokens
    return add_passages(sides, places, given.index, records, spec=spec, tokens=tokens, benchmarks=benchmarks)


def _clean(distinct: pl.DataFrame, spec: ProjectSpec, known: NearIndex, outside: Outside) -> _Cleaned:
    dataset, stages = spec.dataset, [select_usable(distinct)]
    unusable = stages[-1].dropped
    for step in cleaning(spec, secret=outside.secret):
        _follow(stages, step(stages[-1].kept))
    redacted = stages[-1].kept
    _follow(stages, validate_outputs(redacted, spec.task, dataset.cleaning))
    review = [off_schema(redacted, stages[-1], spec.task)]
    if spec.task.output_rules:
        _follow(stages, check_rules(stages[-1].kept, spec.task.output_rules))
    for step in fitting(spec, outside.tokens):
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
        before = stages[-1].kept
        semantic = settle_semantic_duplicates(
            before, dataset.semantic_duplicates, spec.task, threshold=dataset.near_duplicate_threshold
        )
        if semantic.stage is not None:
            _follow(stages, semantic.stage)
        names, left = before["record_id"].to_list(), stages[-1].kept["record_id"].to_list()
        pairs, report = pairs_among(pairs.joined(semantic.pairs), names, left), semantic.report
    gave_way = pl.concat([stage.dropped for stage in stages])
    return _Cleaned(stages, unusable, ComparedRecords(compared, gave_way), pairs, near.index, review, report)


def _follow(stages: list[Stage], stage: Stage) -> None:
    """Append ``stage``, and drop the texts of the stage before it."""
    stages[-1] = without_texts(stages[-1])
    stages.append(stage)


def _as_received(survivors: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """Return ``survivors`` with their texts from before cleaning, which may change one turn in two ways."""
    received = records.select("record_id", "input", "history", "group")
    return survivors.select("record_id").join(received, on="record_id", how="left", maintain_order="left")


def _quality(
    survivors: pl.DataFrame, cleaned: _Cleaned, spec: ProjectSpec, overlaps: Sequence[Overlap]
) -> Quality:
    suspects = find_suspects(survivors, spec.dataset.label_review)
    review = review_list([*cleaned.review, suspected(survivors, suspects.found)])
    told = tuple(overlap.report for overlap in overlaps)
    return Quality(review=review, suspects=suspects, contamination=told, semantic=cleaned.semantic)


def _with_key(records: pl.DataFrame) -> pl.DataFrame:
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    return records.with_columns(comparison_keys(pl.Series("key", asked, dtype=pl.String)))


def _by_format(split: Split) -> dict[ExampleFormat, int]:
    formats = pl.concat([split.train["format"], split.holdout["format"]]).value_counts().sort("format")
    return {ExampleFormat(name): count for name, count in formats.iter_rows()}


def _rejections(examples: pl.DataFrame, split: Split, spec: ProjectSpec) -> tuple[str, ...]:
    reasons: list[str] = []
    wanted = spec.dataset.min_examples
    if examples.height < wanted:
        reasons.append(
            f"dataset.min_examples: {examples.height} clean examples where {wanted} are needed; "
            "publish more answered records, or lower it"
        )
    if examples.height and (split.holdout.is_empty() or split.train.is_empty()):
        groups = examples["group"].n_unique()
        reasons.append(
            f"group: {groups} groups leave nothing to hold out or nothing to train on, for those whose "
            "questions are much alike stay together; give unrelated records different groups (customers, "
            "threads), and publish questions that differ"
        )
    if spec.task.label_field is not None and examples.height and examples["label"].n_unique() < 2:
        only = examples["label"].unique().to_list()
        reasons.append(
            f"task.label_field: all examples have the same {spec.task.label_field}, {only[0]!r}; "
            "publish examples of at least two"
        )
    return tuple(reasons)


def _preliminary(examples: int, spec: ProjectSpec) -> str | None:
    wanted = spec.dataset.comfortable_examples
    if examples >= wanted:
        return None
    return (
        f"dataset.comfortable_examples: {examples} clean examples where {wanted} make a model dependable; "
        "publish more answered records"
    )


def refused(distinct: pl.DataFrame, reason: str) -> Build:
    """Return the build of ``distinct`` records that ``reason`` forbids."""
    nothing = pl.DataFrame(schema=EXAMPLE_SCHEMA)
    lineage = distinct.select(RECORD_COLUMNS).with_columns(
        pl.lit(None, dtype=pl.String).alias(name) for name in LINEAGE_COLUMNS[len(RECORD_COLUMNS) :]
    )
    return Build(
        split=Split(nothing, nothing),
        funnel=(),
        lineage=lineage,
        redactions={},
        counts=DatasetCounts(records=distinct.height, examples=0, train=0, holdout=0),
        rejections=(reason,),
        near_index=empty_index(),
        quality=Quality(),
    )


def label_counts(frame: pl.DataFrame) -> dict[str, int]:
    """Return the number of examples by label, most frequent first; those without one are left out."""
    counted = Counter(label for label in frame["label"] if label is not None)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
