"""Curation from end to end: turns a project's records into a dataset version, or says why there is none.

Pure and deterministic: the same set of records gives the same build. Order and repetition do not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.dataset import DatasetCounts, ExampleFormat, FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Trust

from tunewheel_curate.evaluation.benchmarks import merged
from tunewheel_curate.evaluation.leakage import ANSWER_IN_TRAINING
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA, examples_of
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.holdout.splitting import Split, label_request
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.labels.quality import Quality
from tunewheel_curate.labels.review import review_list
from tunewheel_curate.lineage import LINEAGE_COLUMNS, RECORD_COLUMNS, SourceCount, count_sources, lineage_of
from tunewheel_curate.outcomes import no_outcomes
from tunewheel_curate.passages.adding import PROMPT_COLUMNS, Shown, shown_in
from tunewheel_curate.preferences import negatives_of, pairs_of
from tunewheel_curate.quarantine.rules import LISTED
from tunewheel_curate.records.selection import Selected, select
from tunewheel_curate.replay.mixing import Replayed, replayed_of
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.stage import DOCUMENT
from tunewheel_curate.step import Context, Kind, Lane, run
from tunewheel_curate.steps import DRAFTS, LATER_STEPS, ROW_STEPS


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
    preferences: pl.DataFrame | None = None
    """None: no record has an answer to avoid beside the answer to prefer."""
    negatives: pl.DataFrame | None = None
    """None: no answer was rated down, or ``dataset.ratings`` is off."""
    replayed: Replayed | None = None
    preliminary: str | None = None
    """Why the version is only preliminary; None: it has enough examples."""
    sources: tuple[SourceCount, ...] = ()
    pinned: Pinned = field(default_factory=Pinned)
    extractive: int = 0
    """How many questions about documents were made from headings, without a teacher."""
    outcomes: pl.DataFrame = field(default_factory=no_outcomes)
    """What the row steps made of the rows, so that the next build does not run them again."""
    shown: Shown | None = None
    """The passages in the prompts of training rows. None: the project trains without passages."""
    waiting: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LISTED))
    """The records in quarantine."""
    requests: dict[str, str] = field(default_factory=dict)
    """By example: the request for labels that it answers."""
    answers_in_training: dict[str, bool] = field(default_factory=dict)
    """By held-out example with a long answer: whether the answer stands in the text of a training row."""


def build(
    records: pl.DataFrame,
    spec: ProjectSpec,
    inputs: Inputs | None = None,
    *,
    earlier: NearIndex | None = None,
    outcomes: pl.DataFrame | None = None,
) -> Build:
    """Curate ``records`` (``RECORD_SCHEMA``, one project) by ``spec``. A faulty spec gives a rejection.

    ``earlier`` is the ``near_index`` of an earlier build, and ``outcomes`` are its outcomes. They save time
    and do not change the result.
    """
    inputs = inputs or Inputs()
    ratings = spec.dataset.ratings
    selected = select(records, inputs.withdrawals, ratings=ratings, judged=inputs.judged)
    return curate(selected, spec, inputs, earlier=earlier or empty_index(), outcomes=outcomes)


def curate(
    selected: Selected,
    spec: ProjectSpec,
    inputs: Inputs,
    *,
    earlier: NearIndex,
    outcomes: pl.DataFrame | None = None,
) -> Build:
    """Curate the ``selected`` records; see ``build``."""
    context = partial(Context, spec=spec, inputs=inputs, selected=selected, earlier=earlier)
    try:
        lanes, passed = run(DRAFTS, LATER_STEPS, context, row_steps=ROW_STEPS, outcomes=outcomes)
    except InvalidSpec as error:
        return refused(selected.distinct, str(error))
    return replace(_put_together(lanes, context(Kind.ANSWER, lanes=lanes)), outcomes=passed)


def _put_together(lanes: Mapping[Kind, Lane], context: Context) -> Build:
    """Return the version that the rows of ``lanes`` are."""
    spec, inputs, selected = context.spec, context.inputs, context.selected
    answers, own = lanes[Kind.ANSWER], Split(context.train.sort("example_id"), examples_of(context.holdout))
    pairs, negatives = (lanes[kind].rows if kind in lanes else None for kind in (Kind.PAIR, Kind.NEGATIVE))
    split, replayed = own, None
    if Kind.REPLAY in lanes and inputs.replay is not None and spec.dataset.replay is not None:
        replayed = replayed_of(lanes[Kind.REPLAY], inputs.replay, spec.dataset.replay, own.train.height)
        split = Split(pl.concat([own.train, replayed.examples]).sort("example_id"), own.holdout)
    in_training: dict[str, bool] = dict(
        answers.rows.select("example_id", ANSWER_IN_TRAINING).drop_nulls().iter_rows()
    )
    waiting = _waiting(lanes)
    shown, examples = _shown(lanes, inputs), pl.concat([own.train, own.holdout])
    funnel = [
        stage for kind in Kind if kind in lanes and kind is not Kind.PASSAGE for stage in lanes[kind].funnel
    ]
    figures = {stage.name: stage.counts for lane in _curated(lanes) for stage in lane.stages if stage.counts}
    return Build(
        split=split,
        funnel=(*funnel, *([] if shown is None else [shown.funnel])),
        lineage=lineage_of(selected.distinct, selected.set_aside(DOCUMENT), lanes, shown),
        redactions=figures.get("redaction", {}),
        counts=DatasetCounts(
            records=selected.distinct.height,
            examples=examples.height,
            train=split.train.height,
            holdout=split.holdout.height,
            replay=split.train.height - own.train.height,
            preferences=0 if pairs is None else pairs.height,
            negatives=0 if negatives is None else negatives.height,
            formats=_by_format(split),
            answers_in_training=sum(in_training.values()) if in_training else None,
        ),
        rejections=why_rejected(answers.rows, split, spec, waiting.height),
        near_index=answers.near_index,
        figures=figures,
        quality=_quality(lanes, waiting),
        memory=answers.memory,
        preferences=None if pairs is None else pairs_of(pairs),
        negatives=None if negatives is None else negatives_of(negatives),
        replayed=replayed,
        preliminary=why_preliminary(answers.rows.height, spec),
        sources=count_sources(selected.distinct, examples),
        pinned=inputs.pinned,
        extractive=sum(
            lane.rows.filter(pl.col("attributes") == "extractive").height for lane in _curated(lanes)
        ),
        shown=shown,
        answers_in_training=in_training,
        waiting=waiting,
        requests=dict(answers.rows.select("example_id", label_request()).drop_nulls().iter_rows()),
    )


def _curated(lanes: Mapping[Kind, Lane]) -> list[Lane]:
    """Return the lanes whose rows are examples of the project's own records."""
    return [lanes[kind] for kind in (Kind.ANSWER, Kind.DOCUMENT) if kind in lanes]


def _quality(lanes: Mapping[Kind, Lane], waiting: pl.DataFrame) -> Quality:
    """Return the findings that people should review."""
    answers, overlaps = lanes[Kind.ANSWER], merged(one for lane in _curated(lanes) for one in lane.overlaps)
    return Quality(
        review=review_list(answers.review),
        suspects=answers.suspects,
        contamination=tuple(overlap.report for overlap in overlaps),
        semantic=answers.semantic,
        quarantined=dict(waiting.group_by("reason").len().sort("reason").iter_rows()),
    )


def _waiting(lanes: Mapping[Kind, Lane]) -> pl.DataFrame:
    """Return the records that wait for a person: a document once, however many of its drafts wait."""
    parts = [part for lane in lanes.values() for part in lane.waiting]
    rows = pl.concat([pl.DataFrame(schema=LISTED), *parts]).unique(
        "record_id", keep="first", maintain_order=True
    )
    return rows.sort("reason", "record_id")


def _shown(lanes: Mapping[Kind, Lane], inputs: Inputs) -> Shown | None:
    """Return the passages in the prompts: of examples, then of pairs, then of negatives."""
    if inputs.index is None or Kind.PASSAGE not in lanes:
        return None
    parts = [_curated(lanes), *([lanes[kind]] for kind in (Kind.PAIR, Kind.NEGATIVE) if kind in lanes)]
    prompts = [pl.concat([lane.rows.select(PROMPT_COLUMNS) for lane in part]) for part in parts]
    return shown_in(prompts, inputs.index, lanes[Kind.PASSAGE].rows.height)


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


def why_rejected(
    examples: pl.DataFrame, split: Split, spec: ProjectSpec, waiting: int = 0
) -> tuple[str, ...]:
    """Return the reasons against a version of ``examples``; empty if it may be published. Each reason names
    the field and the fix."""
    reasons: list[str] = []
    wanted = spec.dataset.min_examples
    if examples.height < wanted:
        listed = (
            f"judge the {waiting} records that wait (`tunewheel quarantine list --project {spec.project}`), "
        )
        reasons.append(
            f"dataset.min_examples: {examples.height} clean examples where {wanted} are needed; "
            f"{listed if waiting else ''}publish more answered records, or lower it"
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
