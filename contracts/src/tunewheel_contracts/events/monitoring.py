"""What follows from production besides drift and rollout judgements: scores, resolved alarms, missing labels,
decisions about turns, and how turns ended."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Frozen, RelativePath, Sha256, Slug, SourceId, Timestamp
from tunewheel_contracts.formats.serving import Fault, RouteRole

NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Outcome = Literal["answered", "failed", "cancelled"]


class LogPosition(Frozen):
    """Where an event lies on its topic: the way to its texts for as long as the log keeps them."""

    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]


class InferenceScored(Event):
    """What the monitor keeps of one completion, or of one rating of it: figures, no text. Keyed by the
    project, so that everything about one project has one order."""

    type: ClassVar[str] = "inference.scored"
    subject_field: ClassVar[str] = "completion_id"
    key_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("scored",)

    project: Slug
    completion_id: SourceId
    scored: str
    """Id of the ``inference.completed`` or ``feedback.received``: scored twice, it bears the same name."""
    of: Literal["completion", "rating"] = "completion"
    position: LogPosition | None = None
    """Of the scored event on its topic."""
    model_id: str
    role: RouteRole
    pinned: bool = False
    shadow_of: SourceId | None = None
    at: Timestamp
    """When the answer was complete, or the rating given."""
    user: str | None = None
    """Pseudonym of whose request it was: requests of one user are one cluster. Never their name: an erasure
    destroys the key that leads from the one to the other."""
    client: str | None = None
    """Name of the API key that was used."""
    outcome: Outcome = "answered"
    fault: Fault | None = None
    """Of a failed request: whose fault that is."""
    latency_seconds: NonNegative | None = None
    first_token_seconds: NonNegative | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    overrides: tuple[str, ...] = ()
    """What of the project's own the client replaced: what such an answer is like says nothing of the
    model."""
    format_valid: bool | None = None
    violations: tuple[str, ...] = ()
    truncated: bool = False
    """The answer ended at its token limit."""
    label: str | None = None
    """Of the answer, where the task has a label field and the answer one of the labels."""
    language: Annotated[str | None, Field(json_schema_extra={"deprecated": True})] = None
    """Never given: nothing judges by the language of questions."""
    refusal: bool | None = None
    """The answer declines, by the task's own pattern."""
    repetition: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Share of the answer's word 4-grams that were there before."""
    invented: Annotated[int, Field(ge=0)] | None = None
    """Terms of the answer that stand neither in the question nor in what was trained on."""
    dataset_id: Slug | None = None
    """The version that ``cell``, ``novelty`` and ``vector`` refer to; None: there is no reference, or no
    text."""
    cell: Annotated[int, Field(ge=0)] | None = None
    """Which region of the reference's questions the question lies in."""
    novelty: FiniteFloat | None = None
    """Cosine distance of the question to the nearest question of the reference. Where these bear labels, plus
    how strange the question is to every label, on the same scale."""
    novel: bool | None = None
    """It lies farther from the reference than 95 in 100 of the reference's own questions lie from the
    others."""
    vector: Annotated[str, Field(max_length=1024)] | None = None
    """Of a novel question: its embedding's components as signed bytes, in base64; 127 stands for 1."""
    similarity: FiniteFloat | None = None
    """Cosine of the question and the passage of its prompt that fits best; None: no passage was looked up, or
    the question had no vector."""
    retrieval_sha256: Sha256 | None = None
    """Of the retrieval spec that ``similarity`` was found by."""
    near: Annotated[tuple[Slug, ...], Field(max_length=16)] = ()
    """Alarms whose cluster the question lies in, novel or not: what is known of that cluster's answers once a
    version covers it. Of a rating: of the rated question."""
    rating: Literal["up", "down"] | None = None
    """Of a rating: the thumb."""
    corrected: bool | None = None
    """Of a rating: it brought a correction."""
    agrees: bool | None = None
    """Of a rating with a correction: the answer's label is the correction's."""


class DriftResolved(Event):
    """An alarm is over: what it was about lies within its bounds again, or another version serves and was
    trained on it."""

    type: ClassVar[str] = "drift.resolved"
    subject_field: ClassVar[str] = "alarm_id"

    project: Slug
    alarm_id: Slug
    detector: str
    """The detector's own name: the ``signal`` of the ``drift.detected``."""
    dataset_id: Slug
    """The version in production when it was over."""
    model_id: str
    reason: str
    """``calm``: the statistic returned, or there was nothing to measure for long; ``covered``: a version
    serves that was trained on it, or has nothing to measure; ``unrated``: it is about ratings, and answers
    went on for seven days without one; ``off``: nobody watches for it any more."""
    statistic: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    raised_at: Timestamp
    resolved_at: Timestamp
    inferences: Annotated[int, Field(ge=0)] = 0
    """Completions between alarm and end."""


class LabelsRequested(Event):
    """Prompts of production wait for a trusted answer: a version without them would learn nothing new. While
    the alarm is open the request grows: each ``revision`` names all prompts of the one before, and more."""

    type: ClassVar[str] = "labels.requested"
    subject_field: ClassVar[str] = "request_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("revision",)

    project: Slug
    request_id: Slug
    alarm_id: Slug
    dataset_id: Slug
    wanted: Annotated[int, Field(gt=0)]
    """Trusted examples near the cluster that a build should have."""
    keywords: tuple[str, ...] = ()
    centroid: Annotated[tuple[FiniteFloat, ...], Field(max_length=1024)] = ()
    """Mean of the cluster's unit vectors, of the static embedding."""
    radius: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.0
    """Cosine distance from the centroid within which an example is near the cluster."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)] = ()
    """Whose questions to answer, most typical first."""
    prompts: RelativePath | None = None
    """JSON in the object store with the questions' texts, redacted; an erasure empties what it takes."""
    revision: Annotated[int, Field(gt=0, exclude_if=lambda number: number == 1)] = 1
    """Of the events about one request, the one with the highest revision counts."""
    more_prompts: Annotated[tuple[RelativePath, ...], Field(max_length=200, exclude_if=operator.not_)] = ()
    """Like ``prompts``: one file for each later revision, with the prompts that it added. A file that is not
    there holds none: nothing that it would show may be read."""

    @property
    def prompt_files(self) -> tuple[str, ...]:
        """All files with prompts, in the order of the revisions that brought them."""
        return (*((self.prompts,) if self.prompts else ()), *self.more_prompts)


class AlarmAnswer(Frozen):
    """What curate makes of one open alarm."""

    alarm_id: Slug
    detector: str
    follows: str
    """``collect_labels``, ``retrain``, ``investigate`` or ``nothing``, as spec and alarm say."""
    labels: Annotated[int, Field(ge=0)] | None = None
    """Trusted examples near the alarm's cluster; None: this alarm waits for no labels."""
    labels_needed: Annotated[int, Field(ge=0)] | None = None


class TurnDecided(Event):
    """What curate does now about a project's open alarms, and what it waits for. The latest one holds."""

    type: ClassVar[str] = "turn.decided"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = (
        "step",
        "evidence",
        "alarm_ids",
        "alarms",
        "until",
        "spent",
        "limits",
    )

    project: Slug
    step: str
    """``a turn is due``, ``waits for labels``, ``waits for the turn in flight``, ``waits until the alarm
    lasts``, ``cools down``, ``the budget is spent``, ``waits for approval``, ``was tried already``,
    ``a person should look``, ``nothing follows`` or ``no alarm is open``."""
    evidence: str = ""
    """What speaks for it, in words."""
    next_step: str = ""
    """What a person should do; empty where nobody need do anything."""
    alarm_ids: Annotated[tuple[Slug, ...], Field(max_length=64)] = ()
    """The alarms that ``step`` is about, oldest first."""
    alarms: Annotated[tuple[AlarmAnswer, ...], Field(max_length=64)] = ()
    """Every open alarm, oldest first."""
    until: Timestamp | None = None
    """When the clock alone ends the wait."""
    spent: dict[str, FiniteFloat] = {}
    """By ``gpu_hours`` and ``dollars``: what runs cost this calendar month (UTC), where the spec sets a
    limit."""
    limits: dict[str, FiniteFloat] = {}
    """The month's limits, as the spec sets them."""


class TurnCompleted(Event):
    """A turn of the wheel is over: what led to it, what it did, whether it helped."""

    type: ClassVar[str] = "turn.completed"
    subject_field: ClassVar[str] = "turn_id"

    project: Slug
    turn_id: Slug
    """Named by the request for the dataset version that began it."""
    alarm_ids: tuple[Slug, ...] = ()
    """The alarms that the turn was to mend; none: records or a person began the turn."""
    dataset_id: Slug | None = None
    run_id: Slug | None = None
    model_id: Slug | None = None
    outcome: str
    """``helped``, ``did not help``, ``undecided``; ``promoted``: no alarm began it, and its model serves;
    ``rejected``, ``failed``, ``undecided by evaluation``, ``rolled back``, ``retired``, ``superseded``,
    ``unchanged``: it ended before anything could help."""
    reasons: tuple[str, ...] = ()
    before: dict[str, FiniteFloat] = {}
    """Figures of the traffic that the alarm was about, before the turn."""
    after: dict[str, FiniteFloat] = {}
    cost: dict[str, FiniteFloat] = {}
    """``hours`` of training, ``gpu_hours`` where a GPU did it, ``dollars`` where the device has a price,
    ``labels``: examples that the version before it did not have."""
    verdicts: tuple[str, ...] = ()
    """Ids of the events that judged: evaluation, shadow, canary."""
    next_step: str = ""
    """What a person should do where it did not help."""
    began_at: Timestamp
    ended_at: Timestamp
