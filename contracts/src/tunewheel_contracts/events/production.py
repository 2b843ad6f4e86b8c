"""What the gateway and the monitor produce: completions, drift, rollout judgements."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Frozen, RelativePath, Slug, SourceId, Text, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import Fault, LogPolicy, RouteRole


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
    """The client named this very model: no routed traffic, so no part of a rollout's comparison."""
    shadow_of: SourceId | None = None
    """The completion that a shadow copy belongs to."""
    messages: tuple[ChatMessage, ...]
    output: Text
    """The text of the answer; of several answers, of the first. Where it has no text, its tool calls as JSON,
    in OpenAI's shape."""
    finish_reason: str
    error: str | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    latency_seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Of the whole answer, from the first question to the engine."""
    first_token_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    queue_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """How long the request waited in the gateway until the engine was asked."""
    streamed: bool = False
    client: SourceId | None = None
    """Name of the API key, never the key."""
    customer: SourceId | None = None
    """Whose request it was, as the client's ``user`` says: the name under which an erasure finds it."""
    completed_at: Timestamp
    format_valid: bool | None = None
    """Whether the whole answer has the form that the project's task asks for, by its schema and rules at that
    time. None: there is no whole answer, or the gateway did not know the task."""
    violations: Annotated[tuple[str, ...], Field(max_length=60)] = ()
    """What of the form the answer breaks: ``empty``, ``output_schema``, ``output_rules.<number>``."""
    cancelled: bool = False
    """The client left before it had the whole answer; ``output`` is what had been said. Counts neither for
    the model nor against it."""
    fault: Fault | None = None
    """Of a failed request (``error``): whose fault that is. None: an older gateway did not say."""
    texts: LogPolicy = "full"
    """What of the texts is here. ``redacted``: placeholders stand for personal data. ``hashed``: of each text
    a keyed hash, equal for equal texts. ``off``: no messages, no output."""
    overrides: Annotated[tuple[str, ...], Field(max_length=32, exclude_if=operator.not_)] = ()
    """What of the project's own the client replaced: ``system_prompt``, ``response_format``, ``tools``,
    names of sampling parameters, ``max_tokens`` where the answer ended at a limit below the task's. Such an
    answer says little of the model."""
    retrieval: Annotated[RetrievalUse | None, Field(exclude_if=operator.not_)] = None
    """The passages that stood in the prompt; None: none was looked for."""


class DriftWindow(Frozen):
    first_completion_id: str
    last_completion_id: str
    completions: Annotated[int, Field(gt=0)]
    started_at: Timestamp
    ended_at: Timestamp


class DriftExample(Frozen):
    completion_id: str
    excerpt: Annotated[str, Field(max_length=300)]
    """Beginning of what was asked or answered. Nobody stores it but this topic, until its retention ends."""
    score: FiniteFloat


class DriftCluster(Frozen):
    """Questions that belong together, and that the reference, or the documents, do not cover."""

    prompts: Annotated[int, Field(gt=0)]
    share: Annotated[FiniteFloat, Field(ge=0, le=1)]
    """Of the questions looked at."""
    keywords: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    """What sets them apart, without personal data."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)] = ()
    """Most typical first."""
    centroid: Annotated[tuple[FiniteFloat, ...], Field(max_length=1024)] = ()
    """Mean of their unit vectors, of the static embedding. Empty: they have in common what they lack, not
    where they lie."""
    radius: Annotated[FiniteFloat, Field(ge=0, le=2)] = 0.0
    """Cosine distance from the centroid that nine in ten of them keep."""


class DriftDetected(Event):
    """Production no longer looks like what the champion was trained on: an alarm, until
    ``drift.resolved``."""

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
    """The version whose own distribution is the reference."""
    model_id: str
    window: DriftWindow
    examples: Annotated[tuple[DriftExample, ...], Field(max_length=10)] = ()
    alarm_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """The alarm's name, by which ``drift.resolved`` ends it."""
    signal: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """The detector's own name; ``detector`` says whether it looks at questions, answers or people's
    verdicts."""
    effect: Annotated[FiniteFloat | None, Field(exclude_if=lambda effect: effect is None)] = None
    """How large the change is, in ``effect_unit``."""
    effect_unit: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    reference: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """What was compared with, in words."""
    suggested_action: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """``collect_labels``, ``retrain``, ``update_documents`` or ``investigate``."""
    cluster: Annotated[DriftCluster | None, Field(exclude_if=operator.not_)] = None
    evidence: Annotated[RelativePath | None, Field(exclude_if=operator.not_)] = None
    """JSON in the object store with the texts that show it, redacted; an erasure empties what it takes."""


class RolloutBound(Frozen):
    """One figure of candidate and champion, compared for as long as the trial runs (always valid)."""

    figure: str
    """``errors``, ``incidents``, ``invalid``, ``latency``, ``first_token``, ``feedback``, ``labels``: a share
    of requests, answers or ratings."""
    candidate: FiniteFloat
    champion: FiniteFloat
    low: FiniteFloat
    """Lower end of the confidence sequence of the difference, candidate minus champion: above 0, the
    candidate fails."""
    high: FiniteFloat
    """Upper end, which one time in twenty is too low: below the margin, the candidate may pass."""
    margin: FiniteFloat
    """Tolerated difference."""
    pairs: Annotated[int, Field(ge=0)] = 0
    """Pairs, of answers or of small groups seen side by side, that it rests on."""


class RolloutJudged(Event):
    """A shadow or canary stage has seen enough traffic for a verdict, or its time is over; or what it brought
    to production is worse there."""

    type: ClassVar[str] = "rollout.judged"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("stage", "generation")

    project: Slug
    model_id: Slug
    stage: Literal["shadow", "canary"]
    generation: Annotated[int, Field(ge=0)]
    """Of the ``serving.desired`` under which the traffic was seen."""
    verdict: Literal["passed", "failed"]
    requests: Annotated[int, Field(ge=0)]
    candidate: dict[str, FiniteFloat]
    champion: dict[str, FiniteFloat]
    reasons: tuple[str, ...]
    decided_by: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """``bounds``: what was compared; ``incidents``: the engine failed the candidate more often;
    ``deadline``: nothing was shown in time; ``guard``: of a model that ``stage`` brought to production."""
    bounds: Annotated[tuple[RolloutBound, ...], Field(exclude_if=operator.not_)] = ()
    alpha: Annotated[FiniteFloat | None, Field(exclude_if=operator.not_)] = None
    """Chance that an equal candidate, at any time, in any figure, would have failed."""
