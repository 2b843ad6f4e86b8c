"""People's commands, folded from events: who gave each, and what became of it. Pure."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.api.commands import State
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import OUR_SOURCES, Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    ErasureCompleted,
    RecordJudged,
    RedeliveryRequested,
)
from tunewheel_contracts.events.evaluation import (
    AnswersCompared,
    EvalFailed,
    EvalPassed,
    EvalRequested,
    EvalUndecided,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import (
    CommandRefused,
    ModelCommanded,
    ModelPinned,
    ModelPromoted,
    ModelRolledback,
)
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainControl
from tunewheel_contracts.events.turns import CompletionsChosen, LabelsRequested
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.sweep import SweepState
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.deadletter import HEADER_PREFIX, Undecoded

COMMANDS = (
    topics.DATASET_REQUESTED,
    topics.EVAL_REQUESTED,
    topics.TRAIN_CONTROL,
    topics.SWEEP_REQUESTED,
    topics.MODEL_COMMANDED,
    topics.REVIEW_SUBMITTED,
    topics.REVIEW_ANSWERED,
    topics.ANSWERS_COMPARED,
    topics.RECORD_JUDGED,
    topics.COMPLETIONS_CHOSEN,
    topics.REDELIVERY_REQUESTED,
    topics.PROJECT_DECLARED,
    topics.DOCUMENT_WITHDRAWN,
    topics.ERASURE_REQUESTED,
)
"""The topics with commands of people."""
_NAMES = frozenset(topic.name for topic in COMMANDS)
_FOLDED = _NAMES | {
    event.type
    for event in (
        CommandRefused,
        ModelPromoted,
        ModelRolledback,
        ModelPinned,
        DatasetVersioned,
        DatasetRejected,
        ErasureCompleted,
        EvalPassed,
        EvalFailed,
        EvalUndecided,
        ReviewRequested,
        LabelsRequested,
        SweepProgressed,
    )
}
COPIED = (ErasureRequested, DocumentWithdrawn)
"""Commands that nobody signs: whoever may write to the topic can write another one under the same id."""
ANSWERED = {
    ModelCommanded.type,
    DatasetRequested.type,
    EvalRequested.type,
    CompletionsChosen.type,
    SweepRequested.type,
}
"""The commands that a service answers by an event. The others are done when they are on the log, unless a
service makes a dead letter of one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command; ``by``: the event that carried it out, or the service that refused it."""

    state: State
    by: str | None = None
    at: datetime | None = None
    led_to: str | None = None
    field: str | None = None
    reason: str = ""


WAITING = Outcome("waiting")


@dataclass(frozen=True, slots=True)
class Given:
    """One command."""

    command_id: str
    project: str
    type: str
    at: datetime
    action: str
    target: str
    principal: Principal | None
    door: str
    signed_by: str | None
    refused_as: str


@dataclass
class Commands:
    """The commands of one project. Applying an event twice, or in another order, changes nothing."""

    refusals: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By ``refused_as`` of the event that became a dead letter. All projects share them."""
    by_id: dict[str, Given] = field(default_factory=dict[str, Given])
    erasures: dict[str, Envelope[ErasureRequested]] = field(
        default_factory=dict[str, Envelope[ErasureRequested]]
    )
    """By ``erasure_id``, the first request."""
    _proofs: defaultdict[str, dict[str, ErasureCompleted]] = field(default_factory=lambda: defaultdict(dict))
    """By ``erasure_id`` and holder."""
    _outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By the id of the event that was answered."""
    _led_to: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By a request for a version, the requests that curate published in its place."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. Events that are neither commands nor answers are ignored."""
        if envelope.data.type not in _FOLDED:
            return
        what, before = _asked(envelope), self.by_id.get(envelope.id)
        # this process knows its own commands before they are signed; a copy of an unsigned one is another's
        is_first = before is None or (before.signed_by is None and not isinstance(envelope.data, COPIED))
        if what is not None and is_first:
            self.by_id[envelope.id] = _given(envelope, *what)
        match envelope.data:
            case ErasureRequested(erasure_id=name):
                before = self.erasures.get(name, envelope)
                self.erasures[name] = min(before, envelope, key=lambda one: (one.time, one.id))
            case ErasureCompleted() as data:
                self._proofs[data.erasure_id][data.holder] = data
            case DatasetRequested() if envelope.causation_id is not None:
                self._led_to[envelope.causation_id].add(envelope.id)
            case _:
                for answered, outcome in _answers(envelope):
                    before = self._outcomes.get(answered, outcome)
                    self._outcomes[answered] = min(before, outcome, key=_order)

    def proofs(self, erasure_id: str) -> dict[str, ErasureCompleted]:
        return self._proofs.get(erasure_id, {})

    def outcome(self, command: Given) -> Outcome:
        """Return what became of a command so far."""
        refusal = self.refusals.get(command.refused_as)
        if refusal is not None:
            return refusal
        if command.type == ErasureRequested.type:
            return self._erased(command)
        if command.type not in ANSWERED:
            return Outcome("done", at=command.at)
        return next(self._found(command.command_id, set()), WAITING)

    def _erased(self, command: Given) -> Outcome:
        proofs = self.proofs(command.target)
        missing = [name for name in HOLDERS if name not in proofs]
        if missing:
            return Outcome("waiting", reason=f"without a proof yet: {', '.join(missing)}")
        return Outcome("done", at=max(one.completed_at for one in proofs.values()))

    def _found(self, event_id: str, seen: set[str]) -> Iterator[Outcome]:
        """Yield the outcomes of a request and of the requests that it led to."""
        if event_id in seen:
            return
        seen.add(event_id)
        for found in (self.refusals.get(event_id), self._outcomes.get(event_id)):
            if found is not None:
                yield found
        for following in sorted(self._led_to.get(event_id, ())):
            yield from self._found(following, seen)


def refused_as(event: Envelope[Any]) -> str | None:
    """Return by what the dead letter of a command is found: by its id, and if nobody signs such commands also
    by its content, because everybody may write another one under the same id. None: it is no command."""
    if event.data.type not in _NAMES:
        return None
    if topics.BY_NAME[event.data.type].is_command:
        return event.id
    return f"{event.id} {content_sha256(event.data.model_dump_json().encode())}"


def refusal_in(letter: Undecoded) -> Outcome:
    """Return what a dead letter says of the command that it holds."""
    told = {name: value.decode("utf-8", "replace") for name, value in letter.headers.items()}
    at = datetime.fromtimestamp(letter.logged_ms / 1000, UTC) if letter.logged_ms else None
    by, field, reason = (told.get(f"{HEADER_PREFIX}{name}", "") for name in ("service", "field", "reason"))
    return Outcome("refused", by, at, field=field, reason=reason)


def _order(outcome: Outcome) -> tuple[datetime, str]:
    return outcome.at or datetime.max.replace(tzinfo=UTC), outcome.by or ""


def _asked(envelope: Envelope[Any]) -> tuple[str, str] | None:
    """Return what a command wants and what it is about. None: the event is no command of a person."""
    door = door_of(envelope.source)
    match envelope.data:
        case ModelCommanded() as data:
            return data.action, data.model_id
        case TrainControl() as data:
            return data.action.value, data.run_id
        case SweepRequested() as data:
            return "try recipes", data.sweep_id
        case DatasetRequested(reason=BuildReason.COMMAND, records_upto=None) if envelope.causation_id is None:
            return "build", envelope.project
        case EvalRequested() as data if door != "registry":
            return "evaluate", data.run_id
        case ReviewSubmitted() as data:
            return data.verdict, data.review_id or data.run_id
        case ReviewAnswered() as data:
            return "answer", data.review_id
        case RecordJudged() as data:
            return data.verdict, data.record_id
        case CompletionsChosen() as data:
            return "label", data.request_id
        case RedeliveryRequested() as data:
            return "handle again", data.letter_id
        case AnswersCompared(reviewer=str()) as data:
            return "compare", data.request_id
        case ErasureRequested() as data if door != "eval":
            return "erase", data.erasure_id
        case DocumentWithdrawn() as data:
            return "withdraw", data.document_id
        case ProjectDeclared():
            return "declare", envelope.project
        case _:
            return None


def _given(envelope: Envelope[Any], action: str, target: str) -> Given:
    data = envelope.data
    return Given(
        envelope.id, envelope.project, data.type, envelope.time, action, target, data.principal,
        door_of(envelope.source), _kid(getattr(data, "signature", None)), refused_as(envelope) or envelope.id,
    )  # fmt: skip


def _answers(envelope: Envelope[Any]) -> Iterator[tuple[str, Outcome]]:
    """Yield the id of the event that ``envelope`` answers, and the outcome."""
    data, by, at = envelope.data, envelope.id, envelope.time
    match data:
        case CommandRefused():
            yield data.command_id, Outcome("refused", "registry", at, field=data.field, reason=data.reason)
        case ModelPromoted() | ModelRolledback() | ModelPinned():
            yield data.cause, Outcome("done", by, at, led_to=data.model_id, reason=data.reason)
        case LabelsRequested(asked_by=str()) if envelope.causation_id is not None:
            yield envelope.causation_id, Outcome("done", by, at, led_to=data.request_id)
        case SweepProgressed() if envelope.causation_id and data.state is not SweepState.TRAINING:
            reason = f"{data.field} {data.reason}".strip()
            yield envelope.causation_id, Outcome("done", by, at, led_to=data.sweep_id, reason=reason)
        case DatasetVersioned() if envelope.causation_id is not None:
            yield envelope.causation_id, Outcome("done", by, at, led_to=data.dataset_id)
        case DatasetRejected() if envelope.causation_id is not None:
            reason = "; ".join(data.reasons)
            yield envelope.causation_id, Outcome("refused", "curate", at, field="dataset", reason=reason)
        case EvalPassed() | EvalFailed() | EvalUndecided() | ReviewRequested() if envelope.causation_id:
            yield envelope.causation_id, Outcome("done", by, at, led_to=data.evaluation_id or data.run_id)
        case _:
            pass


def door_of(source: str) -> str:
    """Return the service that published an event; for another system's event its source."""
    return source.removeprefix(OUR_SOURCES)


def _kid(signature: str | None) -> str | None:
    if signature is None:
        return None
    head = signature.partition(".")[0]
    try:
        return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))).get("kid")
    except (ValueError, AttributeError):
        return None
