"""Events about production, other than drift and rollout judgements: scores, resolved alarms, requests for
labels, decisions about turns, results of turns."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Frozen, RelativePath, Sha256, Slug, SourceId, Timestamp
from tunewheel_contracts.formats.serving import Fault, RouteRole
from tunewheel_contracts.principal import OptionalPrincipal, OptionalSignature
from tunewheel_contracts.reading import if_unknown
from tunewheel_contracts.topic import DAY_MS, TopicSpec

NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Outcome = Annotated[Literal["answered", "failed", "cancelled"], if_unknown("failed")]


class LogPosition(Frozen):
    """The position of an event on its topic. Its texts can be read there while the log keeps them."""

    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]


class Encoded(Frozen):
    """How a sentence encoder scores a question. The fields mean the same as in ``InferenceScored``, by the
    encoder's distances."""

    encoder: Slug
    """Name of the encoder. Figures of different encoders must not be compared."""
    cell: Annotated[int, Field(ge=0)]
    novelty: FiniteFloat
    novel: bool
    vector: Annotated[str | None, Field(max_length=2048)] = None
    """The components of the question's unit vector as signed bytes in base64; 127 stands for 1."""


class InferenceScored(Event):
    """The monitor's scores of one completion, a rating of it, or a comparison with its copy: no texts. The
    key is the project, so that all scores of a project are in order."""

    type: ClassVar[str] = "inference.scored"
    subject_field: ClassVar[str] = "completion_id"
    key_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("scored",)

    project: Slug
    completion_id: SourceId
    scored: str
    """Id of the scored ``inference.completed``, ``feedback.received`` or ``answers.compared``. Scoring it
    twice gives the same event id."""
    of: Annotated[Literal["completion", "rating", "comparison"], if_unknown(None)] = "completion"
    position: LogPosition | None = None
    """Position of the scored event on its topic."""
    model_id: str
    role: RouteRole
    pinned: bool = False
    shadow_of: SourceId | None = None
    at: Timestamp
    """When the answer was complete, or the rating was given."""
    user: str | None = None
    """Pseudonym of the user who asked; statistics treat one user's requests as a cluster. An erasure destroys
    the key that links the pseudonym to the name."""
    client: str | None = None
    """Name of the API key that was used."""
    outcome: Outcome = "answered"
    fault: Fault | None = None
    """The party at fault for a failed request."""
    latency_seconds: NonNegative | None = None
    first_token_seconds: NonNegative | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    overrides: tuple[str, ...] = ()
    """Settings of the project that the client replaced. Such an answer says nothing about the model."""
    format_valid: bool | None = None
    violations: tuple[str, ...] = ()
    truncated: bool = False
    """The answer ended at its token limit."""
    label: str | None = None
    """The label of the answer, or of the rated answer, if the task has a label field and the answer has one
    of the labels."""
    language: str | None = None
    """Language of the question (ISO 639-1). None: there is no text, or too little to be certain."""
    answer: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """Pseudonym of the text of an answer without a label. Equal texts have equal pseudonyms, until an erasure
    destroys their key."""
    refusal: bool | None = None
    """Whether the answer is a refusal, by the task's pattern."""
    repetition: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Share of the answer's word 4-grams that occur earlier in the answer."""
    invented: Annotated[int, Field(ge=0)] | None = None
    """Number of terms in the answer that occur neither in the question nor in the training data."""
    measures: Annotated[dict[Slug, FiniteFloat], Field(max_length=64, exclude_if=operator.not_)] = {}
    """By detector, what the detector alone measures of the completion."""
    dataset_id: Slug | None = None
    """The dataset version that is the reference of ``cell``, ``novelty`` and ``vector``. None: there is no
    reference, or no text."""
    cell: Annotated[int, Field(ge=0)] | None = None
    """The region of the reference's questions to which the question belongs."""
    novelty: FiniteFloat | None = None
    """Cosine distance of the question to the nearest question of the reference. If the reference has labels,
    a measure of how far the question is from every label is added, on the same scale."""
    novel: bool | None = None
    """Whether the question is farther from the reference than 95 % of the reference's own questions are from
    the others."""
    vector: Annotated[str, Field(max_length=1024)] | None = None
    """For a novel question, and for others that people may be asked about: the components of its embedding as
    signed bytes in base64; 127 stands for 1."""
    encoded: Annotated[Encoded | None, Field(exclude_if=operator.not_)] = None
    """The scores by a sentence encoder, for a sample of the questions. None: the question is not in the
    sample, or there is no encoder."""
    similarity: FiniteFloat | None = None
    """Cosine of the question and the best fitting passage of its prompt. None: no passage was retrieved, or
    the question had no vector."""
    retrieval_sha256: Sha256 | None = None
    """Hash of the retrieval spec under which ``similarity`` was measured."""
    near: Annotated[tuple[Slug, ...], Field(max_length=16)] = ()
    """Alarms to whose cluster the question belongs, novel or not. They show how the cluster is answered once
    a version covers it. For a rating: those of the rated question."""
    rating: Literal["up", "down"] | None = None
    """For a rating: the thumb."""
    corrected: bool | None = None
    """For a rating: whether it has a correction."""
    agrees: bool | None = None
    """For a rating with a correction: whether the labels of answer and correction are equal."""
    preference: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """For a comparison of a champion's completion with the copy that ``model_id`` answered: ``better``,
    ``same`` or ``worse``, as in ``answers.compared``."""
    judge: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """For a comparison: hash of the judge; None: a person compared."""


class FigureSeries(Frozen):
    """A detector's latest windows, oldest first, as columns of equal length. A point of windows that followed
    each other fast stands for several windows: their last statistic and effect, and their least p-value."""

    ended_at: Annotated[tuple[Timestamp, ...], Field(max_length=120)] = ()
    items: tuple[Annotated[int, Field(ge=0)], ...] = ()
    statistic: tuple[FiniteFloat, ...] = ()
    effect: tuple[FiniteFloat, ...] = ()
    p_value: tuple[FiniteFloat, ...] = ()


class FigureSlice(Frozen):
    """The part of a detector's latest items that has one value of a property. It shows where a change is, and
    decides nothing."""

    by: str
    """``label`` (of the answer), ``language`` (of the question) or ``key`` (the API key's name)."""
    value: str
    items: FiniteFloat
    """Number of items; older ones count less."""
    share: FiniteFloat
    """Share of these items that the detector counts as bad. Items that it does not measure are not bad."""


class WindowJudged(Event):
    """A detector's newest figures, at the end of a window and long before an alarm. The latest event of a
    detector replaces the earlier ones."""

    type: ClassVar[str] = "window.judged"
    subject_field: ClassVar[str] = "figure_id"
    key_field: ClassVar[str] = "figure_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("model_id", "windows", "state")

    project: Slug
    figure_id: str
    """The project and the detector, with a slash between them."""
    detector: str
    family: str
    model_id: str
    dataset_id: Slug
    state: str
    """``calm``; ``near``: a tenth of the evidence for an alarm is there; ``alarm``: an alarm is open;
    ``silent``: the latest window had nothing to measure, or the detector still learns what is usual; ``off``:
    the detector is switched off."""
    alarm_id: Slug | None = None
    windows: Annotated[int, Field(ge=0)]
    """Number of windows that the detector measured so far."""
    judged_at: Timestamp
    """Time of the last item of the window."""
    items: Annotated[int, Field(ge=0)] = 0
    """Number of items that the detector measured in the window."""
    statistic_name: str = ""
    statistic: FiniteFloat | None = None
    """None: the detector has measured nothing yet."""
    usual: FiniteFloat | None = None
    """What the statistic is compared with. None: the detector has no such number."""
    effect: FiniteFloat | None = None
    """How far the statistic lies above the usual, in ``effect_unit``."""
    effect_unit: str = ""
    floor: FiniteFloat | None = None
    """The least effect that raises an alarm."""
    p_value: FiniteFloat | None = None
    """1 / evidence of a change, valid however often it is looked at."""
    threshold: FiniteFloat | None = None
    """The p-value below which an alarm is raised."""
    reference: str = ""
    """The standard of the comparison, in words."""
    low: Annotated[FiniteFloat | None, Field(exclude_if=lambda end: end is None)] = None
    high: Annotated[FiniteFloat | None, Field(exclude_if=lambda end: end is None)] = None
    """Interval of a statistic that is an estimate: it contains the true value with probability .95."""
    series: FigureSeries = FigureSeries()
    slices: Annotated[tuple[FigureSlice, ...], Field(max_length=48, exclude_if=operator.not_)] = ()


class DriftResolved(Event):
    """An alarm is over: the signal is within its bounds again, or a version that was trained on the shift is
    served."""

    type: ClassVar[str] = "drift.resolved"
    subject_field: ClassVar[str] = "alarm_id"

    project: Slug
    alarm_id: Slug
    detector: str
    """The detector's own name: ``signal`` of the ``drift.detected``."""
    dataset_id: Slug
    """The dataset version in production when the alarm was over."""
    model_id: str
    reason: str
    """``calm``: the statistic is back in its bounds, or there was nothing to measure for long. ``covered``: a
    version is served that was trained on the shift, or that has nothing to measure. ``unrated``: the alarm
    was about ratings, and there was no rating for seven days of answers. ``off``: the detector was switched
    off."""
    statistic: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    raised_at: Timestamp
    resolved_at: Timestamp
    inferences: Annotated[int, Field(ge=0)] = 0
    """Number of completions between the alarm and its end."""


class LabelCluster(Frozen):
    """Prompts of one ``labels.requested`` that are about the same thing. A canned text that many send is one
    entry, however often it came."""

    cluster_id: Slug
    """The same in all revisions of the request."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)]
    """Its prompts among those of the request."""
    size: Annotated[int, Field(gt=0)]
    """How many production questions were about it, repetitions included."""
    centre: Annotated[str, Field(max_length=1024, exclude_if=operator.not_)] = ""
    """Only earlier releases write it and ``radius``; nothing reads them."""
    radius: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.0


class ChosenCompletion(Frozen):
    """A completion, and the place of its ``inference.completed`` on the log."""

    completion_id: SourceId
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]


class CompletionsChosen(Event):
    """A person chose completions of production whose questions need a trusted answer. The monitor reads the
    texts from the log, stores them without personal data, and publishes ``labels.requested``."""

    type: ClassVar[str] = "completions.chosen"
    subject_field: ClassVar[str] = "request_id"

    project: Slug
    request_id: Slug
    """Of the request for labels. The same completions have the same request."""
    completions: Annotated[tuple[ChosenCompletion, ...], Field(min_length=1, max_length=200)]
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class LabelsRequested(Event):
    """Prompts of production need a trusted answer; a dataset version without them would teach nothing new.
    While the alarm is open the request grows: each ``revision`` names all prompts of the previous one, and
    more; or all but those that an erasure took."""

    type: ClassVar[str] = "labels.requested"
    subject_field: ClassVar[str] = "request_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("revision",)

    project: Slug
    request_id: Slug
    alarm_id: Slug
    dataset_id: Slug
    wanted: Annotated[int, Field(gt=0)]
    """How many trusted examples near the cluster a build should have."""
    keywords: tuple[str, ...] = ()
    centroid: Annotated[tuple[FiniteFloat, ...], Field(max_length=1024)] = ()
    """Mean of the cluster's unit vectors, of the static embedding."""
    radius: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.0
    """Cosine distance from the centroid within which an example is near the cluster."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)] = ()
    """The completions whose questions need an answer, most typical first."""
    prompts: RelativePath | None = None
    """JSON in the object store with the redacted texts of the questions. An erasure empties the items that it
    covers."""
    revision: Annotated[int, Field(gt=0, exclude_if=lambda number: number == 1)] = 1
    """The event with the highest revision of a request replaces the others."""
    more_prompts: Annotated[tuple[RelativePath, ...], Field(max_length=200, exclude_if=operator.not_)] = ()
    """Further files like ``prompts``: one for each later revision, with the prompts that it added. If a file
    is missing, its prompts may not be read any more."""
    clusters: Annotated[tuple[LabelCluster, ...], Field(max_length=64, exclude_if=operator.not_)] = ()
    """What the prompts are about, largest first. Each needs answers of its own. A prompt may be in none."""
    questions: Annotated[int | None, Field(ge=0, exclude_if=lambda count: count is None)] = None
    """Number of production questions over which the sizes of ``clusters`` were counted."""
    asked_by: Annotated[SourceId | None, Field(exclude_if=operator.not_)] = None
    """The person who chose the prompts, or the model that was not sure of its answer. ``alarm_id`` is then
    the name of no alarm. None: the alarm asks."""

    @property
    def share(self) -> float | None:
        """The share of production's questions that the prompts are about: answers can improve no more. None:
        it was not counted."""
        return min(1.0, sum(one.size for one in self.clusters) / self.questions) if self.questions else None

    @property
    def adds_prompts(self) -> bool:
        """Whether this revision has prompts that the previous one had not."""
        added = f".{self.revision}.json"
        return self.revision == 1 or any(path.endswith(added) for path in self.more_prompts)

    @property
    def prompt_files(self) -> tuple[str, ...]:
        """All files with prompts, in the order of their revisions."""
        return (*((self.prompts,) if self.prompts else ()), *self.more_prompts)


class AlarmAnswer(Frozen):
    """Curate's decision about one open alarm."""

    alarm_id: Slug
    detector: str
    follows: str
    """``collect_labels``, ``retrain``, ``investigate`` or ``nothing``, by the spec and the alarm."""
    labels: Annotated[int, Field(ge=0)] | None = None
    """Number of trusted examples near the alarm's cluster. None: the alarm does not wait for labels."""
    labels_needed: Annotated[int, Field(ge=0)] | None = None
    waits_for: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """Who or what ends the wait. People: ``annotators``, who answer labels; ``operator``, who asks for a
    version, edits the spec or publishes documents; ``reviewers``. Else ``clock``, at ``until``; or the
    service that has the turn: ``curate``, ``train``, ``eval``, ``registry``, ``monitor``. None: the spec says
    that nothing follows, or an earlier release decided."""
    tried: Annotated[tuple[Slug, ...], Field(exclude_if=operator.not_)] = ()
    """The latest turns for the alarm, and for the alarms that it reopens, oldest first."""
    lacking: Annotated[dict[str, int], Field(max_length=64, exclude_if=operator.not_)] = {}
    """By topic, a cluster of the request for labels with at least three prompts: how many answers it still
    needs. 0: it is settled, since it has enough, or people called it out of scope."""


class TurnDecided(Event):
    """Curate's present decision about a project's open alarms: what it does, or what it waits for. The latest
    event replaces the earlier ones."""

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
    identity_when_given: ClassVar[tuple[str, ...]] = ("reminder",)

    project: Slug
    step: str
    """``a turn is due``, ``waits for labels``, ``waits for the turn in flight``, ``waits until the alarm
    lasts``, ``cools down``, ``the budget is spent``, ``waits for approval``, ``a service
    needs a person``, ``was tried already``, ``a person should look``, ``nothing follows`` or ``no alarm is
    open``."""
    evidence: str = ""
    """The reasons, in words."""
    next_step: str = ""
    """What a person should do; empty if nothing needs to be done."""
    alarm_ids: Annotated[tuple[Slug, ...], Field(max_length=64)] = ()
    """The alarms that ``step`` is about, oldest first."""
    alarms: Annotated[tuple[AlarmAnswer, ...], Field(max_length=64)] = ()
    """Every open alarm, oldest first."""
    until: Timestamp | None = None
    """The time at which the wait ends without further events."""
    reminder: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0
    """For how many weeks the oldest of the alarms that wait for people has been open. Each week gives a new
    event, also if nothing else changed."""
    remind_at: Annotated[Timestamp | None, Field(exclude_if=operator.not_)] = None
    """When people are reminded next, a week after the last time at most. None: no alarm waits for people."""
    spent: dict[str, FiniteFloat] = {}
    """Cost of runs in this calendar month (UTC), by ``gpu_hours`` and ``dollars``, where the spec sets a
    limit."""
    limits: dict[str, FiniteFloat] = {}
    """The spec's limits for the month."""


class TurnCompleted(Event):
    """What an earlier release told of a turn's end. This release writes ``turn.completed.v2``, and for one
    release the same here."""

    type: ClassVar[str] = "turn.completed"
    subject_field: ClassVar[str] = "turn_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("revision",)

    project: Slug
    turn_id: Slug
    """Derived from the id of the ``dataset.requested`` that began the turn."""
    revision: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0
    """How many ends were told of the turn before, after each of which it went on: its failed run was trained
    again, or the registry moved its model again. The highest revision counts."""
    alarm_ids: tuple[Slug, ...] = ()
    """The alarms that the turn should resolve. Empty: new records or a person began the turn."""
    dataset_id: Slug | None = None
    run_id: Slug | None = None
    model_id: Slug | None = None
    outcome: str
    """``helped``, ``did not help``, ``undecided``; ``promoted``: no alarm began the turn, and its model is
    served; ``rejected``, ``failed``, ``undecided by evaluation``, ``rolled back``, ``retired``,
    ``superseded``, ``unchanged``: the turn ended before its effect could be measured."""
    reasons: tuple[str, ...] = ()
    before: dict[str, FiniteFloat] = {}
    """Figures, before the turn, of the traffic that the alarm was about (``questions``, ``novel``,
    ``invalid``, ``thumbs_down``, ``label_disagreement``), of held-out rows (``held_out_…``), and of the
    champion beside the model in the canary (``canary_…``). ``wrong`` is the champion's share of wrong answers
    to the held-out prompts that answer the alarm, ``prompts`` their number."""
    after: dict[str, FiniteFloat] = {}
    cost: dict[str, FiniteFloat] = {}
    """``hours`` of training; ``gpu_hours`` if it ran on a GPU; ``dollars`` if the device has a price;
    ``labels``: number of examples that the previous version did not have."""
    verdicts: tuple[str, ...] = ()
    """Ids of the events with verdicts: evaluation, shadow, canary."""
    next_step: str = ""
    """What a person should do if the turn did not help."""
    began_at: Timestamp
    ended_at: Timestamp


class TurnCompletedV2(TurnCompleted):
    """A turn of the wheel is over: its causes, its result, and whether it helped. The highest ``revision`` of
    a turn replaces the others: what was told may change when a person promotes its model after a refusal, its
    run is done again, or its model is rolled back."""

    type: ClassVar[str] = "turn.completed.v2"
    key_field: ClassVar[str] = "turn_id"


INFERENCE_SCORED = TopicSpec(InferenceScored, ("monitor",), ("monitor",), 3, retention_ms=30 * DAY_MS)
WINDOW_JUDGED = TopicSpec(WindowJudged, ("monitor",), (), cleanup="compact")
DRIFT_RESOLVED = TopicSpec(
    DriftResolved, ("monitor",), ("curate", "monitor"), 1, replayed_by=("curate", "monitor")
)
COMPLETIONS_CHOSEN = TopicSpec(CompletionsChosen, ("console",), ("monitor",), 1)
LABELS_REQUESTED = TopicSpec(LabelsRequested, ("monitor",), ("curate",), 1)
TURN_DECIDED = TopicSpec(TurnDecided, ("curate",), ("curate",), cleanup="compact")
TURN_COMPLETED = TopicSpec(
    TurnCompleted, ("monitor",), ("curate", "monitor"), 1, replayed_by=("curate", "monitor")
)
TURN_COMPLETED_V2 = TopicSpec(
    TurnCompletedV2,
    ("monitor",),
    ("curate", "monitor"),
    cleanup="compact",
    replayed_by=("curate", "monitor"),
)
