"""Curation from end to end: turns a project's records into a dataset version, or says why there is none.

Pure and deterministic: the same set of records gives the same build. Order and repetition do not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.events.data import Trust
from tunewheel_contracts.formats.dataset import DatasetCounts, ExampleFormat, FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.cleaned import Cleaned, clean
from tunewheel_curate.documents.examples import DocumentExamples, add_documents, handed_over, with_documents
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, merged
from tunewheel_curate.evaluation.contamination import Decontaminated, decontaminate
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA, format_examples
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.holdout.splitting import Split, conversation_pairs
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.labels.quality import Quality
from tunewheel_curate.lineage import LINEAGE_COLUMNS, RECORD_COLUMNS, SourceCount, count_sources, lineage_of
from tunewheel_curate.passages.adding import Shown, add_passages
from tunewheel_curate.preferences.negatives import Negatives
from tunewheel_curate.preferences.pairs import Preferences
from tunewheel_curate.records.selection import distinct_records, drop_withdrawn, with_ratings, with_taught
from tunewheel_curate.replay.mixing import Replayed
from tunewheel_curate.sides import Sides, complete, part
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.similarity.pairs import pairs_among
from tunewheel_curate.stage import Stage


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
    known: NearIndex | None = None,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> Build:
    """Curate ``records`` (``RECORD_SCHEMA``, one project) by ``spec``. A faulty spec gives a rejection.

    ``known`` is the ``near_index`` of an earlier build, if there was one. It saves time and does not change
    the result. Examples that overlap ``benchmarks`` are dropped from training.
    """
    inputs = inputs or Inputs()
    records = with_taught(with_ratings(records, wanted=spec.dataset.ratings))
    distinct = distinct_records(records)
    live = drop_withdrawn(records, inputs.withdrawals)
    try:
        cleaned = clean(live.kept, spec, known or empty_index(), inputs.pinned)
    except InvalidSpec as error:
        return refused(distinct, str(error))
    parting, parted = _part(cleaned, live.kept, spec, inputs, benchmarks)
    stages, examples = [live, *cleaned.stages, parting, parted.stage], parted.stage.kept
    handed = handed_over(live.kept, cleaned.unusable)
    documents = add_documents(handed, spec, inputs.pinned, parted.split, benchmarks, memory=inputs.memory)
    both = with_documents(parted.split, documents)
    sides = complete(
        both, distinct, cleaned.compared, cleaned.unusable, spec=spec, inputs=inputs, benchmarks=benchmarks
    )
    sides, shown = _with_passages(sides, documents, live.kept, spec, inputs, benchmarks)
    own = pl.concat([both.train, both.holdout])
    overlaps = merged([*parted.overlaps, *(documents.overlaps if documents is not None else ())])
    lineage = lineage_of(distinct, stages, examples, documents, shown)
    stages += documents.stages if documents is not None else ()
    figures = {stage.name: stage.counts for stage in stages if stage.counts}
    return Build(
        split=sides.split,
        funnel=(*(stage.funnel for stage in stages), *sides.funnel, *((shown.funnel,) if shown else ())),
        lineage=lineage,
        redactions=figures.get("redaction", {}),
        counts=_counts(distinct, own, sides),
        rejections=why_rejected(examples, sides.split, spec),
        near_index=cleaned.near_index,
        figures=figures,
        quality=cleaned.quality(spec, overlaps),
        memory=sides.memory,
        preferences=sides.preferences,
        negatives=sides.negatives,
        replayed=sides.replayed,
        preliminary=why_preliminary(examples.height, spec),
        sources=count_sources(distinct, own),
        pinned=inputs.pinned,
        extractive=documents.extractive if documents is not None else 0,
        shown=shown,
    )


def _part(
    cleaned: Cleaned,
    live: pl.DataFrame,
    spec: ProjectSpec,
    inputs: Inputs,
    benchmarks: Sequence[BenchmarkTexts],
) -> tuple[Stage, Decontaminated]:
    """Make examples, split them, and drop what gives the benchmarks or the holdout away."""
    survivors = cleaned.survivors
    examples = format_examples(survivors, system_prompt=spec.task.system_prompt)
    by_record = [ids[0] for ids in examples["record_ids"].to_list()]
    related = cleaned.pairs.joined(conversation_pairs(_as_received(survivors, live)))
    pairs = pairs_among(related, survivors["record_id"].to_list(), by_record)
    split, parting = part(
        examples, pairs, cleaned.compared, spec=spec, memory=inputs.memory, secret=inputs.pinned.secret
    )
    parted = decontaminate(
        split,
        benchmarks,
        spec.dataset.contamination,
        threshold=spec.dataset.near_duplicate_threshold,
        index=cleaned.near_index,
    )
    return parting, parted


def _with_passages(
    sides: Sides,
    documents: DocumentExamples | None,
    live: pl.DataFrame,
    spec: ProjectSpec,
    inputs: Inputs,
    benchmarks: Sequence[BenchmarkTexts],
) -> tuple[Sides, Shown | None]:
    """Put passages into the prompts of training rows. This comes last because every comparison before it must
    see the texts as people wrote them."""
    if inputs.index is None or not spec.trains_with_passages:
        return sides, None
    places = documents.places if documents is not None else {}
    records = frozenset(live["record_id"])
    tokens = inputs.pinned.tokens
    return add_passages(sides, places, inputs.index, records, spec=spec, tokens=tokens, benchmarks=benchmarks)


def _as_received(survivors: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """Return ``survivors`` with their texts from before cleaning: the same turn, as a question and in another
    record's history, may be cleaned differently."""
    received = records.select("record_id", "input", "history", "group")
    return survivors.select("record_id").join(received, on="record_id", how="left", maintain_order="left")


def _counts(distinct: pl.DataFrame, own: pl.DataFrame, sides: Sides) -> DatasetCounts:
    """Count the rows of a version. ``own``: the examples of the project's own records and documents."""
    split = sides.split
    return DatasetCounts(
        records=distinct.height,
        examples=own.height,
        train=split.train.height,
        holdout=split.holdout.height,
        replay=split.train.height + split.holdout.height - own.height,
        preferences=sides.preferences.pairs.height if sides.preferences else 0,
        negatives=sides.negatives.rows.height if sides.negatives else 0,
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
