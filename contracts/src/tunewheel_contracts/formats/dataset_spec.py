"""What becomes of a project's records: when a version is built, and what trains and examines."""

from __future__ import annotations

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Fraction, NonNegative, PositiveInt, Sha256, Strict
from tunewheel_contracts.formats.data_quality import (
    Benchmark,
    ContaminationPolicy,
    Expectation,
    ExpectationAction,
    LabelReview,
    PiiPolicy,
    SemanticDuplicates,
    TopicTrust,
)
from tunewheel_contracts.formats.example_formats import CleaningSpec, FormatsSpec

QUIET_MIN_RECORDS = 10
ORIGIN_SHARE, SMALL_PROJECT = 0.05, 300
NOT_ROWS = {"build", "erase_versions", "expectations", "changes"}
"""The settings of ``dataset`` that decide nothing about the rows of a version."""
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]


class BuildPolicy(Strict):
    """When a new dataset version is built without anybody asking."""

    min_new_records: PositiveInt = 100
    """Build once this many records arrived since the last version."""
    quiet_seconds: NonNegative | None = 30.0
    """Build also when fewer arrived, at least ``quiet_min_records``, and then none for this long; null: wait
    for the count."""
    quiet_min_records: Annotated[PositiveInt, Field(exclude_if=lambda count: count == QUIET_MIN_RECORDS)] = (
        QUIET_MIN_RECORDS
    )
    """Fewer new records than this wait for others, because each version is trained and evaluated whole."""


BUNDLED = "bundled"
"""The general instruction data that comes with curate."""


class ReplaySpec(Strict):
    """General instruction data among the training rows, so that the model keeps what it could do before."""

    source: Annotated[str, Field(min_length=1, max_length=512)]
    """``bundled``: some short questions and answers that come with Tunewheel. Else a JSON Lines file (path,
    ``file://`` or ``https://`` URL) or a Hugging Face dataset id. Curate reads what its operator lists: hosts
    in ``TUNEWHEEL_SPEC_HOSTS``, by default the hub's; folders in ``TUNEWHEEL_SPEC_FOLDERS``, by default none
    but ``general/`` of a store that is a folder."""
    share: Annotated[float, Field(gt=0, le=0.9)] = 0.1
    """Of the training rows, replayed ones included. Fewer where the source has not as many."""
    split: Annotated[str, Field(min_length=1, max_length=64)] = "train"
    """Of a Hugging Face dataset."""
    revision: Annotated[str | None, Field(min_length=1, max_length=64, exclude_if=operator.not_)] = None
    """Of a Hugging Face dataset: a commit, tag or branch; null: what its main branch holds."""
    sha256: Sha256 | None = None
    """Refuse the source where its conversations hash to anything else, as a version's manifest says."""
    license: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _revision_of_a_dataset(self) -> Self:
        if self.revision is not None and self.is_file:
            raise inconsistent(
                "revision", f"is of Hugging Face datasets, and {self.source} is a file; pin it by sha256"
            )
        return self

    @property
    def is_file(self) -> bool:
        """Whether ``source`` is a JSON Lines file, by path or URL, or the bundled one, rather than a Hugging
        Face dataset."""
        return (
            self.source == BUNDLED
            or "://" in self.source
            or self.source.endswith((".jsonl", ".jsonl.gz", ".json"))
        )


class RecordLimits(Strict):
    """How many of the rows that train one origin may give, where no expert validated its answers. The rest of
    its records wait in quarantine. Each limit is a share of these rows and the experts' rows together; null:
    no limit. A project without experts' answers has no limits."""

    principal: Annotated[Fraction | None, Field(exclude_if=lambda share: share == ORIGIN_SHARE)] = (
        ORIGIN_SHARE
    )
    """One caller of the API, as the API identified the caller."""
    customer: Annotated[Fraction | None, Field(exclude_if=lambda share: share == ORIGIN_SHARE)] = ORIGIN_SHARE
    """One ``customer`` of tickets and feedback, or ``group`` of examples."""
    kind: Annotated[Fraction | None, Field(exclude_if=operator.not_)] = None
    """All tickets, all examples, or all feedback."""
    day: Annotated[Fraction | None, Field(exclude_if=operator.not_)] = None
    """All records that were published on one day (UTC)."""
    small: Annotated[int, Field(ge=0, exclude_if=lambda count: count == SMALL_PROJECT)] = SMALL_PROJECT
    """An origin's records and the experts' records may always be this many together."""


class DatasetSpec(Strict):
    min_examples: PositiveInt = 20
    """Fewer clean examples than this and the version is rejected."""
    comfortable_examples: PositiveInt = 1000
    """Fewer clean examples than this and the version is marked preliminary."""
    min_characters: PositiveInt = 3
    """Inputs shorter than this are dropped as near-empty."""
    max_tokens: PositiveInt = 1024
    """Longest example that is kept: in the base model's own tokens, where its tokenizer can be had, else in
    estimated ones (four characters each). The version's card says which."""
    holdout_fraction: Annotated[float, Field(ge=0.05, le=0.5)] = 0.15
    """Of the examples of every label, as nearly as groups allow. A change takes effect as data comes."""
    holdout_trust: Annotated[
        tuple[Literal["expert", "corrected", "unverified"], ...],
        Field(min_length=1, max_length=3, exclude_if=lambda trust: trust == ("expert",)),
    ] = ("expert",)
    """Whose answers may be held out: `expert`, those that an expert validated; `corrected`, corrections by
    end users; `unverified`, all others. The rest only trains. A version without any such answer holds out
    unverified ones, and its card and scorecard say so."""
    trust: Annotated[TopicTrust, Field(exclude_if=lambda trust: trust == TopicTrust())] = TopicTrust()
    """The most trust of what producers on Kafka publish, by topic. A change is for what comes after it."""
    min_trust: Annotated[
        Literal["expert", "corrected", "unverified"], Field(exclude_if=lambda trust: trust == "unverified")
    ] = "unverified"
    """Whose answers may train: `unverified`, everybody's; `corrected`, corrections by end users and experts'
    answers; `expert`, only experts' answers."""
    limits: Annotated[RecordLimits, Field(exclude_if=lambda limits: limits == RecordLimits())] = (
        RecordLimits()
    )
    corrections: Annotated[Literal["wait", "train"], Field(exclude_if=lambda mode: mode == "wait")] = "wait"
    """Corrections by end users wait in quarantine until a person releases them, or train at once."""
    injections: Annotated[
        Literal["quarantine", "drop", "keep"], Field(exclude_if=lambda action: action == "quarantine")
    ] = "quarantine"
    """What is done with a text that addresses the model (prompt injection), in questions, answers and
    documents. `quarantine`: it waits for a person; `drop`: it never trains; `keep`: it trains, and lineage
    marks it. No prompt gets a passage of a document that does so, unless a person released the document or
    this is `keep`."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Jaccard similarity of word shingles from which two inputs are nearly the same. They count as one where
    their answers are equal but for case, punctuation, and figures that an answer takes from its question."""
    cleaning: CleaningSpec = CleaningSpec()
    languages: tuple[LanguageCode, ...] = ()
    """Languages that are learnt from, as ISO 639-1 codes; inputs certainly in another one are dropped. Empty:
    all."""
    formats: FormatsSpec = FormatsSpec()
    semantic_duplicates: SemanticDuplicates = SemanticDuplicates()
    label_review: LabelReview = LabelReview()
    benchmarks: Annotated[tuple[Benchmark, ...], Field(max_length=50)] = ()
    contamination: ContaminationPolicy = ContaminationPolicy()
    pii: PiiPolicy = PiiPolicy()
    build: BuildPolicy = BuildPolicy()
    ratings: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Learn from thumbs without a correction as well: an answer rated up is an example that is trusted least,
    an answer rated down one to avoid. They are never held out: nobody checked them."""
    replay: ReplaySpec | None = None
    expectations: Annotated[tuple[Expectation, ...], Field(max_length=50, exclude_if=operator.not_)] = ()
    """What the examples of every version must be like, beside what curation checks itself."""
    changes: Annotated[ExpectationAction, Field(exclude_if=lambda action: action == "warn")] = "warn"
    """What happens where a version differs from the one before by more than chance and by more than a tenth:
    in the shares of labels or kinds of sources, in the length of questions or answers, in what each stage
    drops. Rows that answer a request for labels do not count, and a changed spec only warns."""
    erase_versions: bool = False
    """An erasure deletes also the rows of the versions that held what is erased: nobody can train on them any
    more. False: the proof names them."""
