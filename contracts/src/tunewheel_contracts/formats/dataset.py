"""A dataset version: examples in Parquet, a manifest that names them by content."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Fraction, Frozen, Sha256, Slug, Text
from tunewheel_contracts.formats.quality_report import QualityReport
from tunewheel_contracts.formats.spec import ProjectSpec

RecordsUpto = dict[Annotated[str, Field(pattern=r"^[0-9]+$")], Annotated[int, Field(ge=0)]]
"""Partition of a topic → the offset before which its events count: a set of events that the log names for
good, so that building from it twice builds the same."""


class ChatMessage(Frozen):
    role: Literal["system", "user", "assistant"]
    content: Text


class ExampleFormat(StrEnum):
    """What an example teaches. Only answers do the project's task: they alone are held out, validated
    against ``task`` and taken for what users ask."""

    ANSWER = "answer"
    CHUNK = "chunk"
    """A passage of a document, asked for by its place."""
    QUESTION = "question"
    """A question about a section of a document, with its answer."""
    CODE_SUMMARY = "code_summary"
    """A function, and what it does."""
    CODE_FUNCTION = "code_function"
    """What a function does, and the function."""
    REPLAY = "replay"
    """General instruction data, so that what the model knew is not forgotten."""


class ChatExample(Frozen):
    """One row of ``train.parquet`` or ``holdout.parquet``; columns bear these names.

    ``messages`` is stored as a list of structs {role, content}; ``record_ids`` name the source records.
    """

    example_id: str
    messages: tuple[ChatMessage, ...]
    label: str | None = None
    group: str
    """A pseudonym of the customer or thread. Examples of one group never straddle train and holdout."""
    trust: str
    record_ids: tuple[str, ...]
    format: ExampleFormat = ExampleFormat.ANSWER
    source: Annotated[str | None, Field(exclude_if=lambda source: source is None)] = None
    """Kind of its first record: ``ticket``, ``document``, ``example``, ``feedback``; None: nobody said."""
    language: Annotated[str | None, Field(exclude_if=lambda code: code is None)] = None
    """Of a held-out row: that of its last question, as ISO 639-1 code. None: not certain, or nobody looked.

    Neither this nor ``source`` is part of what names a version: both follow from its records."""


class FunnelStage(Frozen):
    """One stage of curation: what came in, what went out, and why the rest did not."""

    stage: str
    entered: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    reasons: dict[str, int] = {}


class DatasetCounts(Frozen):
    """How many of what. ``examples`` are made of the project's own records; ``train`` holds
    the replayed ones too."""

    records: int
    examples: int
    train: int
    holdout: int
    replay: int = 0
    """Rows of ``train`` that are general instruction data."""
    preferences: int = 0
    negatives: Annotated[int, Field(exclude_if=operator.not_)] = 0
    """Answers that were rated down, with nothing to prefer to them."""
    formats: dict[ExampleFormat, int] = {}
    """``train`` and ``holdout`` together, by format."""


class PreferencePair(Frozen):
    """One row of ``preferences.parquet``: of two answers to one prompt, the one to prefer.

    ``prompt`` is stored as a list of structs {role, content} and ends with the user; its prompts are among
    those that are trained on, never among the held out.
    """

    pair_id: str
    prompt: tuple[ChatMessage, ...]
    chosen: Text
    rejected: Text
    group: str
    trust: str
    record_id: str


class Negative(Frozen):
    """One row of ``negatives.parquet``: an answer that was rated down, with nothing to prefer to it.

    ``prompt`` is as in ``PreferencePair``; its question is neither held out nor like one that is.
    """

    negative_id: str
    prompt: tuple[ChatMessage, ...]
    rejected: Text
    group: str
    trust: str
    record_id: str


class ReplayUse(Frozen):
    """The general instruction data that a version mixes into its training rows."""

    source: str
    """As the spec names it."""
    sha256: Sha256
    """Of the source's conversations, as canonical JSON Lines: the same content, wherever it was read from."""
    available: Annotated[int, Field(ge=0)]
    """Conversations in the source."""
    reasons: dict[str, int] = {}
    """Conversations that were not to be used, and why."""
    sampled: Annotated[int, Field(ge=0)]
    share: Fraction
    """Of all training rows, as it came out."""
    license: str | None = None


class TokenizerUse(Frozen):
    """By what the tokens of a version were counted."""

    base_model: str
    sha256: Sha256 | None = None
    """Of the tokenizer's files, names and contents; None: tokens were estimated."""
    reason: Text | None = None
    """Why they were estimated."""
    verified: Annotated[int, Field(ge=0)] = 0
    """Conversations that went through the model's own chat template and came back whole."""


class TeacherUse(Frozen):
    """What a teacher model contributed to a version."""

    model: str
    sections: Annotated[int, Field(ge=0)]
    answered: Annotated[int, Field(ge=0)]
    """Sections that it wrote questions and answers about; the others were asked extractively."""


class PassageUse(Frozen):
    """What the rows that train were given of the project's documents: how many rows of which kind."""

    gold: Annotated[int, Field(ge=0)]
    """With the passage that answers."""
    distractors_only: Annotated[int, Field(ge=0)]
    """With other passages alone."""
    without: Annotated[int, Field(ge=0)]
    """Without a passage: none was found, or none had room."""
    left_out: Annotated[int, Field(ge=0)]
    """Passages of the index that no row may hold: of a document that was taken back or that the version's
    records lack, or with a held-out question, one of a benchmark, or a control token of the base model."""


class DatasetManifest(Frozen):
    """``datasets/<dataset_id>/manifest.json``. ``dataset_id`` is ``ds-`` and 20 hex digits of the SHA-256
    of the spec's hash, the canonical rows of both splits and, where there are any, the preference pairs and
    the negatives; of rows with passages ``index_id`` too, and of rows that an earlier version had and the one
    before this had not, ``previous``."""

    dataset_id: Slug
    project: Slug
    spec: ProjectSpec
    spec_sha256: Sha256
    criteria_sha256: Sha256
    rows_sha256: Sha256
    train: ArtifactRef
    holdout: ArtifactRef
    card: ArtifactRef | None = None
    lineage: ArtifactRef | None = None
    """Parquet: record_id, source_event_id, source_id, kind, validated_by and validated_at (where the source
    said so), example_id or the stage that dropped it, flags (what was noticed about the record,
    comma-separated); where ``format`` is ``passage``, the example's prompt shows a passage of the record.
    ``source_id`` and ``validated_by`` are pseudonyms, as ``group`` is in all files."""
    preferences: ArtifactRef | None = None
    """Parquet of ``PreferencePair``; None where no record tells an answer to avoid."""
    negatives: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Parquet of ``Negative``; None where the spec does not ask for ratings, or nothing was rated down."""
    holdout_memory: ArtifactRef | None = None
    """Parquet: ``mark``, the hash of every question, source and group that this version or one before it held
    out. The next version never trains on what bears one. ``key`` tells which secret keys the marks; it is not
    there where no secret was set."""
    replay: ReplayUse | None = None
    tokenizer: TokenizerUse | None = None
    teacher: TeacherUse | None = None
    quality: QualityReport | None = None
    data_docs: str | None = None
    counts: DatasetCounts
    funnel: tuple[FunnelStage, ...]
    versions: dict[str, str] = {}
    preliminary: Text | None = None
    """Why this version is only a first try; None for one that is large enough."""
    previous: Slug | None = None
    """The project's version before this one, whose ``holdout_memory`` it continues. The records it was built
    from stand in ``dataset.versioned`` alone: offsets differ between logs that hold the same records."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The index version whose passages stand in the rows that train; None: they hold no passages."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Its ``IndexManifest``."""
    passages: Annotated[PassageUse | None, Field(exclude_if=lambda use: use is None)] = None
