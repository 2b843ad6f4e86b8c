"""Events of the gateway and the monitor: completions, drift, rollout judgements."""

from __future__ import annotations

import operator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import (
    FiniteFloat,
    Fraction,
    Frozen,
    RelativePath,
    Slug,
    SourceId,
    Text,
    Timestamp,
    shared,
)
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import Fault, LogPolicy, RouteRole
from tunewheel_contracts.topic import DAY_MS, TopicSpec

FALLBACK = "fallback"
"""Among ``overrides``: the endpoint of ``serving.abstain`` answered, in place of the project's model."""
ABSTAINED = "abstained"
"""Among ``overrides``: the answer was not sent. Both stand there so that every count of answers leaves them
out."""


class InferenceCompleted(Event):
    """One answered (or shadowed) request. Never carries keys or client headers."""

    type: ClassVar[str] = "inference.completed"
    subject_field: ClassVar[str] = "completion_id"
    key_field: ClassVar[str] = "completion_id"

    project: Slug
    completion_id: SourceId
    model_id: str
    role: RouteRole
    pinned: bool = False
    """The client asked for exactly this model, or the champion answered because the candidate in canary had
    failed, or the project's fallback answered. The request was not routed to this model by its share, so a
    rollout's comparison ignores it."""
    shadow_of: SourceId | None = None
    """For a shadow copy: id of the copied completion."""
    messages: tuple[ChatMessage, ...]
    output: Text
    """The text of the answer; of several answers, the first. An answer without text is logged as the JSON of
    its tool calls, in OpenAI's shape."""
    finish_reason: str
    error: str | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    latency_seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Seconds from the first request to an engine to the whole answer."""
    first_token_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    queue_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """Seconds from the request's arrival at the gateway to the request to the engine."""
    streamed: bool = False
    client: SourceId | None = None
    """Name of the API key; never the key itself."""
    customer: SourceId | None = None
    """The user who asked: the client's ``user``. An erasure finds the completion by this name."""
    completed_at: Timestamp
    format_valid: bool | None = None
    """Whether the whole answer fits the task's output schema and output rules at that time. Null: the answer
    is incomplete, or the gateway did not know the task."""
    violations: Annotated[tuple[str, ...], Field(max_length=60)] = ()
    """The broken requirements: ``empty``, ``output_schema``, ``output_rules.<number>``."""
    cancelled: bool = False
    """The client disconnected before it had the whole answer; ``output`` is the part until then. The
    completion counts neither for nor against the model."""
    fault: Fault | None = None
    """The party at fault for a failed request (``error``). Null: an older gateway did not record it."""
    texts: LogPolicy = "full"
    """Which texts the event holds. ``redacted``: personal data is replaced by placeholders. ``hashed``: each
    text is replaced by a keyed hash, which is equal for equal texts. ``off``: no messages and no output."""
    overrides: Annotated[tuple[str, ...], Field(max_length=32, exclude_if=operator.not_)] = ()
    """Settings of the project that the client replaced: ``system_prompt``, ``retrieval``,
    ``response_format``, ``tools``, names of sampling parameters, ``max_tokens`` if the answer ended at a
    limit below the task's. Such an answer says little about the model. Also ``abstained``: the model was not
    sure of its answer, so it was not sent; ``output`` is empty. Also ``fallback``: an endpoint of
    ``serving.abstain`` answered instead; ``model_id`` is its model."""
    retrieval: Annotated[RetrievalUse | None, Field(exclude_if=operator.not_)] = None
    """The passages in the prompt; null: nothing was retrieved."""
    confidence: Annotated[Confidence | None, Field(exclude_if=operator.not_)] = None
    """How sure the model is of the first answer. Measured for a sample of production's requests, and where
    the project abstains for each."""
    certainty: Annotated[Fraction | None, Field(exclude_if=lambda certainty: certainty is None)] = None
    """How often answers of this confidence are right, by held-out rows. Only where the project abstains."""
    answered_by: Annotated[SourceId | None, Field(exclude_if=operator.not_)] = None
    """For an answer that was not sent: the completion of the project's fallback, which answered instead.
    Null: the client got a refusal."""

    @property
    def abstained(self) -> bool:
        """Whether the answer was not sent to the client."""
        return ABSTAINED in self.overrides


class DriftWindow(Frozen):
    first_completion_id: str
    last_completion_id: str
    completions: Annotated[int, Field(gt=0)]
    started_at: Timestamp
    ended_at: Timestamp


class DriftExample(Frozen):
    completion_id: str
    excerpt: Annotated[str, Field(max_length=300)]
    """Beginning of the question or the answer. Only this topic stores it, until its retention ends."""
    score: FiniteFloat


class DriftCluster(Frozen):
    """A cluster of questions that the reference, or the documents, do not cover."""

    prompts: Annotated[int, Field(gt=0)]
    share: Annotated[FiniteFloat, Field(ge=0, le=1)]
    """Share of the cluster among the examined questions."""
    keywords: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    """Words that are typical of the cluster, without personal data."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)] = ()
    """The completions of the cluster, most typical first."""
    centroid: Annotated[tuple[FiniteFloat, ...], Field(max_length=1024)] = ()
    """Mean of the questions' unit vectors in the static embedding. Empty: the questions share a missing
    answer, but not a region."""
    radius: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.0
    """Cosine distance from the centroid within which 90 % of the questions are."""


class DriftDetected(Event):
    """An alarm: production differs from the champion's training data. It is open until ``drift.resolved``."""

    type: ClassVar[str] = "drift.detected"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("detector", "dataset_id", "window")
    identity_when_given: ClassVar[tuple[str, ...]] = ("signal",)

    project: Slug
    detector: Literal["input", "format", "feedback"]
    statistic_name: str
    statistic: FiniteFloat
    p_value: Annotated[FiniteFloat, Field(ge=0, le=1)]
    threshold: FiniteFloat
    dataset_id: Slug
    """The dataset version whose distribution is the reference."""
    model_id: str
    window: DriftWindow
    examples: Annotated[tuple[DriftExample, ...], Field(max_length=10)] = ()
    alarm_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """The alarm's id, which ``drift.resolved`` repeats."""
    signal: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """The detector's own name. ``detector`` is its family: questions, answers or people's ratings."""
    effect: Annotated[FiniteFloat | None, Field(exclude_if=lambda effect: effect is None)] = None
    """Size of the change, in ``effect_unit``."""
    effect_unit: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    reference: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """Description of the reference that was compared with."""
    suggested_action: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """``collect_labels``, ``retrain``, ``update_documents`` or ``investigate``."""
    cluster: Annotated[DriftCluster | None, Field(exclude_if=operator.not_)] = None
    evidence: Annotated[RelativePath | None, Field(exclude_if=operator.not_)] = None
    """JSON in the object store with redacted texts that show the drift. An erasure empties the items that it
    covers."""
    reopens: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """An earlier alarm about the same problem, which was over. Its turns count as tries of this alarm too."""


class AlarmOpened(Event):
    """What turns need to know of an alarm, without any text of users. The log keeps ``drift.detected`` for 30
    days, but an alarm may be open for longer."""

    type: ClassVar[str] = "alarm.opened"
    subject_field: ClassVar[str] = "alarm_id"
    key_field: ClassVar[str] = "alarm_id"

    project: Slug
    alarm_id: Slug
    detector: Literal["input", "format", "feedback"]
    """The detector's family, as in ``drift.detected``."""
    signal: str
    """The detector's own name."""
    suggested_action: str
    """``collect_labels``, ``retrain``, ``update_documents`` or ``investigate``."""
    dataset_id: Slug
    """The dataset version whose distribution is the reference."""
    model_id: str
    cluster: Annotated[DriftCluster | None, Field(exclude_if=operator.not_)] = None
    """Without keywords."""
    reopens: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """As in ``drift.detected``."""

    @classmethod
    def of(cls, alarm: DriftDetected) -> AlarmOpened:
        """Return the event for ``alarm``, which has an id."""
        bare = alarm.cluster and alarm.cluster.model_copy(update={"keywords": ()})
        own: dict[str, Any] = {
            "alarm_id": alarm.alarm_id or "",
            "signal": alarm.signal or alarm.detector,
            "suggested_action": alarm.suggested_action or "retrain",
            "cluster": bare,
        }
        return cls(**shared(AlarmOpened, alarm) | own)


class RolloutBound(Frozen):
    """One figure of candidate and champion, compared during the trial. The bounds hold at every time
    (always-valid inference)."""

    figure: str
    """``errors``, ``incidents``, ``invalid``, ``latency``, ``first_token``, ``feedback``, ``labels`` or
    ``answers``. Each is a share of requests, answers or ratings; ``answers`` is the share of questions that a
    side answers better than the other, as far as pairs were compared."""
    candidate: FiniteFloat
    champion: FiniteFloat
    low: FiniteFloat
    """Lower end of the confidence sequence of the difference, candidate minus champion. If it is above 0, the
    candidate fails."""
    high: FiniteFloat
    """Upper end, with an error probability of 5 %, or 1 % for ``answers``. If it is below the margin, the
    candidate may pass."""
    margin: FiniteFloat
    """Tolerated difference."""
    pairs: Annotated[int, Field(ge=0)] = 0
    """Number of pairs (of answers, or of small groups of the same time) behind the bounds. For ``answers``:
    of pairs that were compared."""


class RolloutJudged(Event):
    """The verdict on a shadow or canary stage, after enough traffic or at its deadline. Or: a model that the
    stage brought to production does worse there."""

    type: ClassVar[str] = "rollout.judged"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("stage", "generation")

    project: Slug
    model_id: Slug
    stage: Literal["shadow", "canary"]
    generation: Annotated[int, Field(ge=0)]
    """Generation of the ``serving.desired`` that was in force during the trial."""
    verdict: Literal["passed", "failed"]
    requests: Annotated[int, Field(ge=0)]
    candidate: dict[str, FiniteFloat]
    champion: dict[str, FiniteFloat]
    reasons: tuple[str, ...]
    decided_by: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """``bounds``: the compared figures; ``incidents``: engine failures were more frequent for the candidate;
    ``deadline``: nothing was shown in time; ``no gain``: a model whose evaluation was undecided is
    no better; ``guard``: a model that ``stage`` brought to production does
    worse there."""
    bounds: Annotated[tuple[RolloutBound, ...], Field(exclude_if=operator.not_)] = ()
    alpha: Annotated[FiniteFloat | None, Field(exclude_if=operator.not_)] = None
    """Probability with which an equally good candidate would fail, at any time and in any figure."""


INFERENCE_COMPLETED = TopicSpec(
    # The gateway searches it for the completions that feedback is about.
    InferenceCompleted,
    ("serve-gateway",),
    ("monitor", "serve-gateway"),
    3,
    retention_ms=30 * DAY_MS,
    replayed_by=("serve-gateway",),
)
DRIFT_DETECTED = TopicSpec(
    # Events of earlier releases contain users' questions, so they are kept no longer than completions.
    DriftDetected,
    ("monitor",),
    ("curate", "monitor", "registry"),
    1,
    retention_ms=30 * DAY_MS,
    replayed_by=("monitor", "registry"),
)
ALARM_OPENED = TopicSpec(
    AlarmOpened,
    ("monitor",),
    ("curate", "monitor"),
    cleanup="compact",
    replayed_by=("curate", "monitor"),
)
ROLLOUT_JUDGED = TopicSpec(RolloutJudged, ("monitor",), ("registry", "monitor"), 1, replayed_by=("monitor",))
