"""The files of a dataset version: examples in Parquet, and a manifest with their hashes."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Fraction, Frozen, Sha256, Slug, Text
from tunewheel_contracts.formats.data_quality import ExpectationAction
from tunewheel_contracts.formats.quality_report import QualityReport
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.reading import if_unknown

RecordsUpto = dict[Annotated[str, Field(pattern=r"^[0-9]+$")], Annotated[int, Field(ge=0)]]
"""Offsets by partition of a topic: all events before them are included. This identifies a fixed set of
events, so that building from it twice gives the same result."""


class ChatMessage(Frozen):
    role: Annotated[Literal["system", "user", "assistant"], if_unknown(None)]
    content: Text


class ExampleFormat(StrEnum):
    """The kind of an example. Only answers are examples of the project's task. So only answers are held out,
    checked against ``task``, and used as a reference for users' questions."""

    ANSWER = "answer"
    CHUNK = "chunk"
    """A passage of a document; the prompt asks for it by its position in the document."""
    QUESTION = "question"
    """A question about a section of a document, with its answer."""
    CODE_SUMMARY = "code_summary"
    """From a function to its description."""
    CODE_FUNCTION = "code_function"
    """From a description to the function."""
    REPLAY = "replay"
    """General instruction data, so that the model does not forget its earlier abilities."""


class ChatExample(Frozen):
    """One row of ``train.parquet`` or ``holdout.parquet``. The columns have the names of these fields.

    ``messages`` is stored as a list of structs {role, content}. ``record_ids`` are the source records.
    """

    example_id: str
    messages: tuple[ChatMessage, ...]
    label: str | None = None
    group: str
    """A pseudonym of the customer or thread. All examples of a group are in the same split."""
    trust: str
    record_ids: tuple[str, ...]
    format: ExampleFormat = ExampleFormat.ANSWER
    source: Annotated[str | None, Field(exclude_if=lambda source: source is None)] = None
    """Kind of its first record: ``ticket``, ``document``, ``example``, ``feedback``; null: unknown."""
    language: Annotated[str | None, Field(exclude_if=lambda code: code is None)] = None
    """For a held-out row: language of its last question, as ISO 639-1 code. Null: uncertain, or not
    determined."""
    label_request: Annotated[Slug | None, Field(exclude_if=lambda request: request is None)] = None
    """For a held-out row: the ``labels.requested`` that its record answers."""
    answer_in_training: Annotated[bool | None, Field(exclude_if=lambda found: found is None)] = None
    """For a held-out row: whether its answer stands in the text of a training row, such as a passage of a
    document. Null: the answer has fewer than 13 words, or nobody looked.

    Neither this field nor ``label_request``, ``source`` and ``language`` are part of a version's hash,
    because they follow from the records."""


class FunnelStage(Frozen):
    """One stage of curation: the number of inputs and outputs, and the reasons for the difference."""

    stage: str
    entered: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    reasons: dict[str, int] = {}


class DatasetCounts(Frozen):
    """Counts of a version. ``examples`` are made of the project's own records; ``train`` also includes replay
    rows."""

    records: int
    examples: int
    train: int
    holdout: int
    replay: int = 0
    """Number of rows in ``train`` that are general instruction data."""
    preferences: int = 0
    negatives: Annotated[int, Field(exclude_if=operator.not_)] = 0
    """Number of answers that were rated down and have no better answer."""
    formats: dict[ExampleFormat, int] = {}
    """Number of rows in ``train`` and ``holdout`` together, by format."""
    answers_in_training: Annotated[int | None, Field(ge=0, exclude_if=lambda count: count is None)] = None
    """Number of held-out answers that stand in the text of training rows. Null: no held-out answer is long
    enough to tell, or nobody looked."""


class PreferencePair(Frozen):
    """One row of ``preferences.parquet``: two answers to the same prompt, of which one is better.

    ``prompt`` is stored as a list of structs {role, content} and ends with a user message. The prompts are
    also in the training split, and never in the holdout.
    """

    pair_id: str
    prompt: tuple[ChatMessage, ...]
    chosen: Text
    rejected: Text
    group: str
    trust: str
    record_id: str


class Negative(Frozen):
    """One row of ``negatives.parquet``: an answer that was rated down and has no better answer.

    ``prompt`` is as in ``PreferencePair``. Its question is neither in the holdout nor similar to a held-out
    one.
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
    """The source, as in the spec."""
    sha256: Sha256
    """Hash of the source's conversations as canonical JSON Lines. It is the same wherever the content was
    read."""
    available: Annotated[int, Field(ge=0)]
    """Number of conversations in the source."""
    reasons: dict[str, int] = {}
    """Number of conversations that were not usable, by reason."""
    sampled: Annotated[int, Field(ge=0)]
    share: Fraction
    """Resulting share of all training rows."""
    license: str | None = None


class TokenizerUse(Frozen):
    """The tokenizer with which a version's tokens were counted."""

    base_model: str
    sha256: Sha256 | None = None
    """Hash of the names and contents of the tokenizer's files; null: tokens were estimated."""
    reason: Text | None = None
    """Why tokens were estimated."""
    verified: Annotated[int, Field(ge=0)] = 0
    """Number of conversations that were rendered with the model's chat template and parsed back without
    loss."""


class TeacherUse(Frozen):
    """The contribution of a teacher model to a version."""

    model: str
    sections: Annotated[int, Field(ge=0)]
    answered: Annotated[int, Field(ge=0)]
    """Number of sections for which the teacher wrote questions and answers. For the others the extractive
    method was used."""


class PassageUse(Frozen):
    """Number of training rows by the kind of passages in their prompts."""

    gold: Annotated[int, Field(ge=0)]
    """Rows with the passage that answers the question."""
    distractors_only: Annotated[int, Field(ge=0)]
    """Rows with other passages only."""
    without: Annotated[int, Field(ge=0)]
    """Rows without a passage: none was found, or none fitted."""
    left_out: Annotated[int, Field(ge=0)]
    """Number of the index's passages that no row may contain. Their document was withdrawn or is not among
    the version's records, or they contain a held-out question, a benchmark text or a control token of the
    base model."""


class ExpectationResult(Frozen):
    """One expectation about a version: what was expected, and what the version holds."""

    expectation: str
    """The expectation in words: its type and its arguments."""
    by: Annotated[Literal["project", "version_before"], if_unknown("project")]
    """Whose expectation it is: the spec's (``dataset.expectations``), or one that follows from the version
    before (``dataset.changes``)."""
    met: bool
    observed: str
    """What was found, in words; empty where the expectation is met and has no figure."""
    action: ExpectationAction
    """What happens if it is not met."""


class DatasetManifest(Frozen):
    """``datasets/<dataset_id>/manifest.json``. ``dataset_id`` is ``ds-`` and 20 hex digits of a SHA-256. The
    hash covers the spec's hash, the canonical rows of both splits, and the preference pairs and negatives if
    there are any. If rows have passages it also covers ``index_id``. If the rows equal those of an earlier
    version but not those of the previous one, it also covers ``previous``."""

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
    """Parquet: record_id, source_event_id, source_id, kind, validated_by and validated_at (if the source
    states them), example_id or the stage that dropped the record, flags (observations about the record,
    comma-separated), cut (the redacted text that cleaning removed from an example; if there is any). If
    ``format`` is ``passage``, the example's prompt contains a passage of the record. ``source_id`` and
    ``validated_by`` are pseudonyms, as ``group`` is in all files."""
    preferences: ArtifactRef | None = None
    """Parquet of ``PreferencePair``; null if no record has an answer to avoid."""
    negatives: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Parquet of ``Negative``; null if the spec does not use ratings, or nothing was rated down."""
    holdout_memory: ArtifactRef | None = None
    """Parquet: ``mark`` is the hash of each question, source and group that this or an earlier version held
    out. Later versions never train on data with such a mark. If a secret was set, some marks are keyed
    sketches of questions, by which their rewordings are recognised, and ``key`` identifies the secret."""
    replay: ReplayUse | None = None
    tokenizer: TokenizerUse | None = None
    teacher: TeacherUse | None = None
    quality: QualityReport | None = None
    data_docs: str | None = None
    counts: DatasetCounts
    funnel: tuple[FunnelStage, ...]
    versions: dict[str, str] = {}
    preliminary: Text | None = None
    """Why this version is only preliminary; null: it is large enough."""
    previous: Slug | None = None
    """The project's previous version, whose ``holdout_memory`` this version continues. The offsets of the
    records are only in ``dataset.versioned``, because they differ between logs with the same records."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The index version whose passages are in the training rows; null: the rows have no passages."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """The index version's ``IndexManifest``."""
    passages: Annotated[PassageUse | None, Field(exclude_if=lambda use: use is None)] = None
    expectations: Annotated[tuple[ExpectationResult, ...], Field(exclude_if=operator.not_)] = ()
    """What was expected of this version beside curation's own checks."""
