"""Curation from end to end: turns a project's records into a dataset version, or says why there is none.

Pure and deterministic: the same set of records gives the same build. Order and repetition do not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.events.data import Trust
from tunewheel_contracts.formats.dataset import DatasetCounts, ExampleFormat, FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.contents import Contents, complete
from tunewheel_curate.documents.examples import add_documents, draft_documents
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, Overlap, merged
from tunewheel_curate.evaluation.contamination import decontaminate
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA, format_examples
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory
from tunewheel_curate.holdout.splitting import Split, split_version
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.labels.quality import Quality
from tunewheel_curate.labels.review import review_list, suspected
from tunewheel_curate.labels.suspects import find_suspects
from tunewheel_curate.lineage import LINEAGE_COLUMNS, RECORD_COLUMNS, SourceCount, count_sources, lineage_of
from tunewheel_curate.passages.adding import Shown, add_passages
from tunewheel_curate.preferences.negatives import Negatives, draft_negatives
from tunewheel_curate.preferences.pairs import Preferences
from tunewheel_curate.records.selection import Selected, select
from tunewheel_curate.replay.mixing import Replayed
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.stage import DOCUMENT, RATED_DOWN, without_texts
from tunewheel_curate.step import Context, Kind, Lane, run
from tunewheel_curate.steps import STEPS


@dataclass(frozen=True)
class Build:
    """The result of a build. ``rejections`` is empty if the version may be published."""

    split: Split
    funnel: tuple[FunnelStage, ...]
    lineage: pl.DataFrame
    """Rows of ``LINEAGE_COLUMNS``; ``stage`` and ``reason`` are set for dropped records."""
    redactions: dict[str, int]
    """How many pieces of personal data were replaced, by entity."""
    counts: DatasetCounts
    rejections: tuple[str, ...]
    near_index: NearIndex
    """A cache of compared texts, so that the next build does not compare these records again."""
    quality: Quality
    """Findings that people should review."""
    figures: dict[str, dict[str, int]] = field(default_factory=dict)
    """``Stage.counts`` by stage."""
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    """What this version and all earlier ones held out."""
    preferences: Preferences | None = None
    negatives: Negatives | None = None
    replayed: Replayed | None = None
    preliminary: str | None = None
    """Why the version is only preliminary; None: it has enough examples."""
    sources: tuple[SourceCount, ...] = ()
    pinned: Pinned = field(default_factory=Pinned)
    extractive: int = 0
    """How many questions about documents were made from headings, without a teacher."""
    shown: Shown | None = None
    """The passages in the prompts of training rows. None: the project trains without passages."""


def build(
    records: pl.DataFrame,
    spec: ProjectSpec,
    inputs: Inputs | None = None,
    *,
    earlier: NearIndex | None = None,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> Build:
    """Curate ``records`` (``RECORD_SCHEMA``, one project) by ``spec``. A faulty spec gives a rejection.

    ``earlier`` is the ``near_index`` of an earlier build, if there was one. It saves time and does not change
    the result. Examples that overlap ``benchmarks`` are dropped from training.
    """
    inputs = inputs or Inputs()
    selected = select(records, inputs.withdrawals, ratings=spec.dataset.ratings)
    return curate(selected, spec, inputs, earlier=earlier or empty_index(), benchmarks=benchmarks)


def curate(
    selected: Selected,
    spec: ProjectSpec,
    inputs: Inputs,
    *,
    earlier: NearIndex,
    benchmarks: Sequence[BenchmarkTexts],
) -> Build:
    """Curate the ``selected`` records; see ``build``."""
    distinct, live = selected.distinct, selected.live.kept
    try:
        lanes = draft(selected, spec, inputs.pinned)
        run(STEPS, lanes, partial(Context, spec=spec, pinned=inputs.pinned, received=live, earlier=earlier))
    except InvalidSpec as error:
        return refused(distinct, str(error))
    answers = lanes[Kind.ANSWER]
    compared = ComparedRecords(answers.held, pl.concat([stage.dropped for stage in answers.stages]))
    formatted = format_examples(answers.rows, system_prompt=spec.task.system_prompt)
    pairs = answers.pairs_among(formatted["record_ids"].list.first())
    split, divided = split_version(
        formatted, pairs, compared, spec=spec, memory=inputs.memory, secret=inputs.pinned.secret
    )
    cleared = decontaminate(
        split,
        benchmarks,
        spec.dataset.contamination,
        threshold=spec.dataset.near_duplicate_threshold,
        index=answers.near_index,
    )
    stages, examples = [*answers.stages, divided, cleared.stage], cleared.stage.kept
    documents = None
    if drafts := lanes.get(Kind.DOCUMENT):
        documents = add_documents(
            selected.set_aside(DOCUMENT), drafts, spec, cleared.split, benchmarks, memory=inputs.memory
        )
    both = cleared.split
    if documents is not None:
        both = replace(both, train=pl.concat([both.train, documents.examples]).sort("example_id"))
    contents = complete(
        both, distinct, compared, lanes.get(Kind.NEGATIVE), spec=spec, inputs=inputs, benchmarks=benchmarks
    )
    shown = None
    if inputs.index is not None and spec.trains_with_passages:
        # The last of all, because every comparison must see the texts as people wrote them.
        contents, shown = add_passages(
            contents, documents, inputs.index, live["record_id"], spec=spec, tokens=inputs.pinned.tokens,
            benchmarks=benchmarks,
        )  # fmt: skip
    own = pl.concat([both.train, both.holdout])
    overlaps = merged([*cleared.overlaps, *(documents.overlaps if documents is not None else ())])
    lineage = lineage_of(distinct, stages, examples, documents, shown)
    stages += documents.stages if documents is not None else ()
    figures = {stage.name: stage.counts for stage in stages if stage.counts}
    return Build(
        split=contents.split,
        funnel=(*(stage.funnel for stage in stages), *contents.funnel, *((shown.funnel,) if shown else ())),
        lineage=lineage,
        redactions=figures.get("redaction", {}),
        counts=_counts(distinct, own, contents),
        rejections=why_rejected(examples, contents.split, spec),
        near_index=answers.near_index,
        figures=figures,
        quality=_quality(answers, spec, overlaps),
        memory=contents.memory,
        preferences=contents.preferences,
        negatives=contents.negatives,
        replayed=contents.replayed,
        preliminary=why_preliminary(examples.height, spec),
        sources=count_sources(distinct, own),
        pinned=inputs.pinned,
        extractive=documents.extractive if documents is not None else 0,
        shown=shown,
    )


def draft(selected: Selected, spec: ProjectSpec, pinned: Pinned) -> dict[Kind, Lane]:
    """Return the rows that go through ``STEPS``, by kind. A kind without a lane is not part of the version.

    Raises:
        InvalidSpec: see ``draft_documents``.
    """
    stages = [without_texts(selected.live), without_texts(selected.usable)]
    lanes = {Kind.ANSWER: Lane(selected.usable.kept, stages)}
    if spec.dataset.formats.documents.enabled:
        lanes[Kind.DOCUMENT] = draft_documents(selected.set_aside(DOCUMENT), spec, pinned)
    rated_down = selected.set_aside(RATED_DOWN)
    if rated_down.height:
        lanes[Kind.NEGATIVE] = draft_negatives(rated_down)
    return lanes


def _quality(answers: Lane, spec: ProjectSpec, overlaps: Sequence[Overlap]) -> Quality:
    """Return the findings that people should review."""
    suspects = find_suspects(answers.rows, spec.dataset.label_review)
    return Quality(
        review=review_list([*answers.review, suspected(answers.rows, suspects.found)]),
        suspects=suspects,
        contamination=tuple(overlap.report for overlap in overlaps),
        semantic=answers.semantic,
    )


def _counts(distinct: pl.DataFrame, own: pl.DataFrame, contents: Contents) -> DatasetCounts:
    """Count the rows of a version. ``own``: the examples of the project's own records and documents."""
    split = contents.split
    return DatasetCounts(
        records=distinct.height,
        examples=own.height,
        train=split.train.height,
        holdout=split.holdout.height,
        replay=split.train.height + split.holdout.height - own.height,
        preferences=contents.preferences.pairs.height if contents.preferences else 0,
        negatives=contents.negatives.rows.height if contents.negatives else 0,
        formats=_by_format(split),
    )


def _by_format(split: Split) -> dict[ExampleFormat, int]:
    formats = pl.concat([split.train["format"], split.holdout["format"]]).value_counts().sort("format")
    return {ExampleFormat(name): count for name, count in formats.iter_rows()}


def refused(distinct: pl.DataFrame, reason: str) -> Build:
    """Return a build of ``distinct`` records that is rejected for ``reason``."""
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
    """Return the number of examples by label, most frequent first; unlabelled examples do not count."""
    counted = Counter(label for label in frame["label"] if label is not None)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def why_rejected(examples: pl.DataFrame, split: Split, spec: ProjectSpec) -> tuple[str, ...]:
    """Return the reasons against a version of ``examples``; empty if it may be published. Each reason names
    the field and the fix."""
    reasons: list[str] = []
    wanted = spec.dataset.min_examples
    if examples.height < wanted:
        reasons.append(
            f"dataset.min_examples: {examples.height} clean examples where {wanted} are needed; "
            "publish more answered records, or lower it"
        )
    askable = (*spec.dataset.holdout_trust, Trust.UNVERIFIED)
    if examples.height and not examples["trust"].is_in(askable).any():
        reasons.append(
            "dataset.holdout_trust: no answer may be held out, because end users or models gave all of them; "
            "publish answers with validated_by, or add corrected to the list"
        )
    elif examples.height and (split.holdout.is_empty() or split.train.is_empty()):
        groups = examples["group"].n_unique()
        reasons.append(
            f"group: {groups} groups leave nothing to hold out or nothing to train on, because groups with "
            "similar questions stay together; give unrelated records different groups (customers, "
            "threads), and publish questions that differ"
        )
    if spec.task.label_field is not None and examples.height and examples["label"].n_unique() < 2:
        only = examples["label"].unique().to_list()
        reasons.append(
            f"task.label_field: all examples have the same {spec.task.label_field}, {only[0]!r}; "
            "publish examples of at least two"
        )
    return tuple(reasons)


def why_preliminary(examples: int, spec: ProjectSpec) -> str | None:
    """Return why a version with this many ``examples`` is only preliminary; None if there are enough."""
    wanted = spec.dataset.comfortable_examples
    if examples >= wanted:
        return None
    return (
        f"dataset.comfortable_examples: {examples} clean examples where {wanted} make a model dependable; "
        "publish more answered records"
    )
