"""Events about turns of the wheel: requests for the labels that a turn needs, curate's decisions, and what
became of each turn."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Frozen, RelativePath, Slug, SourceId, Timestamp
from tunewheel_contracts.principal import OptionalPrincipal, OptionalSignature
from tunewheel_contracts.topic import TopicSpec


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
    the name of no alarm. Null: the alarm asks."""

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
    """Number of trusted examples near the alarm's cluster. Null: the alarm does not wait for labels."""
    labels_needed: Annotated[int, Field(ge=0)] | None = None
    waits_for: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """Who or what ends the wait. People: ``annotators``, who answer labels; ``operator``, who asks for a
    version, edits the spec or publishes documents; ``reviewers``. Else ``clock``, at ``until``; or the
    service that has the turn: ``curate``, ``train``, ``eval``, ``registry``, ``monitor``. Null: the spec says
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
    """When people are reminded next, a week after the last time at most. Null: no alarm waits for people."""
    spent: dict[str, FiniteFloat] = {}
    """Cost of runs in this calendar month (UTC), by ``gpu_hours`` and ``dollars``, where the spec sets a
    limit."""
    limits: dict[str, FiniteFloat] = {}
    """The spec's limits for the month."""


class TurnCompleted(Event):
    """The end of a turn, for readers of the release before: for one release it holds the same as
    ``turn.completed.v2``."""

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
