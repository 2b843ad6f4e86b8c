"""Events about production, other than drift and rollout judgements: scores, windows, resolved alarms."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Frozen, Sha256, Slug, SourceId, Timestamp
from tunewheel_contracts.formats.serving import Fault, RouteRole
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
    """Language of the question (ISO 639-1). Null: there is no text, or too little to be certain."""
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
    """The dataset version that is the reference of ``cell``, ``novelty`` and ``vector``. Null: there is no
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
    """The scores by a sentence encoder, for a sample of the questions. Null: the question is not in the
    sample, or there is no encoder."""
    similarity: FiniteFloat | None = None
    """Cosine of the question and the best fitting passage of its prompt. Null: no passage was retrieved, or
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
    """For a comparison: hash of the judge; null: a person compared."""


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
    """Null: the detector has measured nothing yet."""
    usual: FiniteFloat | None = None
    """What the statistic is compared with. Null: the detector has no such number."""
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


INFERENCE_SCORED = TopicSpec(InferenceScored, ("monitor",), ("monitor",), 3, retention_ms=30 * DAY_MS)
WINDOW_JUDGED = TopicSpec(WindowJudged, ("monitor",), (), cleanup="compact")
DRIFT_RESOLVED = TopicSpec(
    DriftResolved, ("monitor",), ("curate", "monitor"), 1, replayed_by=("curate", "monitor")
)
