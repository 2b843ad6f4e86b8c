"""The report of ``tunewheel status``, from Kafka and from processes: where each project is on the wheel, and
who reads the log. Also the registered models and their stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, Stage
from tunewheel_contracts.topics import TopicSpec
from tunewheel_contracts.turn_report import as_json
from tunewheel_contracts.turn_status import TOPICS as TURN_TOPICS
from tunewheel_contracts.turn_status import TurnStatus

from tunewheel_cli.dead_letters import dead_letter_counts
from tunewheel_cli.describing import describe
from tunewheel_cli.lag import GroupLag, read_lag, silent_services
from tunewheel_cli.reading import read_topics
from tunewheel_cli.run_state import RunState
from tunewheel_cli.service_health import as_services, ask_health, by_name, local_urls, warnings_of

SHOWN: tuple[TopicSpec, ...] = (*TURN_TOPICS, topics.SERVING_DESIRED, topics.ROLLOUT_JUDGED)
"""The topics from which a status is made. An alarm does not move a project, because curate decides about it.
Busy topics (tickets, records, completions) do not move one either."""

ENDED = "ended without a rollout, collecting records"
_PLACES = {
    topics.PROJECT_DECLARED.name: "collecting records",
    topics.DATASET_REQUESTED.name: "building a dataset",
    topics.DATASET_VERSIONED.name: "waiting for training",
    topics.DATASET_REJECTED.name: "dataset rejected, collecting records",
    topics.TRAIN_STARTED.name: "training",
    topics.TRAIN_PROGRESSED.name: "training",
    topics.TRAIN_COMPLETED.name: "evaluating",
    topics.TRAIN_FAILED.name: "training failed",
    topics.EVAL_PASSED.name: "passed, rolling out",
    topics.EVAL_FAILED.name: "refused, collecting records",
    topics.EVAL_UNDECIDED.name: "undecided, collecting records",
    topics.REVIEW_REQUESTED.name: "waiting for a review",
    topics.MODEL_ROLLEDBACK.name: "rolled back, collecting records",
    topics.ROLLOUT_JUDGED.name: "rollout judged",
}


@dataclass(slots=True)
class ProjectStatus:
    """One project: its place on the wheel, the model in production, and its last events."""

    project: str
    place: str = ""
    since: datetime | None = None
    last: str = ""
    serving: str = "nothing"
    datasets: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)
    drifts: set[str] = field(default_factory=set)
    turns: TurnStatus = field(default_factory=TurnStatus)

    def apply(self, envelope: Envelope[Any]) -> None:
        event, name = envelope.data, envelope.data.type
        self.turns.apply(envelope)
        if getattr(event, "superseded_by", None):
            return  # the newer version has the project
        if name == topics.DATASET_VERSIONED.name:
            self.datasets.add(event.dataset_id)
        elif name == topics.TRAIN_STARTED.name:
            self.runs.add(event.run_id)
        elif name == topics.DRIFT_DETECTED.name:
            self.drifts.add(envelope.id)
        elif name == topics.SERVING_DESIRED.name:
            self.serving = describe(envelope)
            return
        if name == topics.MODEL_PROMOTED.name:
            if event.to_stage.value == "production":
                self.promoted.add(event.model_id)
            stage = event.to_stage.value
            place = {"production": "serving", "retired": ENDED}.get(stage, stage)
            # A model that was replaced or superseded does not move the project: another model has it now.
            by_itself = stage == "retired" and event.decided_by in ("rollout", "criteria")
            if stage in ("retired", "rejected", "evaluated") and not by_itself:
                return
        elif getattr(event, "awaits_index", False):
            place = "waiting for the first index of its documents"
        elif name in _PLACES:
            place = _PLACES[name]
        else:
            return
        self.place, self.since, self.last = place, envelope.time, f"{name} {describe(envelope)}"

    def as_json(self) -> dict[str, Any]:
        """Return the status for machines."""
        return {
            "project": self.project,
            "place": self.place,
            "since": self.since,
            "last": self.last,
            "serving": self.serving,
            "datasets": len(self.datasets),
            "runs": len(self.runs),
            "promoted": len(self.promoted),
            "drifts": len(self.drifts),
            "turns": as_json(self.turns, datetime.now(UTC)),
        }


def fold(events: Iterable[Envelope[Any]]) -> dict[str, ProjectStatus]:
    """Return the status of every declared project. Events are applied in the order of their time."""
    found: dict[str, ProjectStatus] = {}
    for envelope in sorted(events, key=lambda e: e.time):
        found.setdefault(envelope.project, ProjectStatus(envelope.project)).apply(envelope)
    return {name: status for name, status in found.items() if status.place}


@dataclass(frozen=True, slots=True)
class WheelReport:
    lags: Sequence[GroupLag] = ()
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """The number of dead letters by topic."""
    projects: Mapping[str, ProjectStatus] = field(default_factory=dict[str, ProjectStatus])
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """The processes of this machine and those at the health URLs, by name, in the form of
    ``RunState.services``."""
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @property
    def silent_services(self) -> list[str]:
        """The services whose consumer groups have no member."""
        return silent_services(self.lags)

    @property
    def hidden_groups(self) -> list[str]:
        """The consumer groups that this client may not see."""
        return sorted({lag.group for lag in self.lags if not lag.visible})


async def read_report(
    options: Mapping[str, Any], wheel: RunState | None, health_urls: Sequence[str], project: str | None
) -> WheelReport:
    """Read the log, and ask the processes. ``options`` are aiokafka's; ``wheel`` is the one on this machine.

    Raises:
        TransientError, NotAllowed, TopicsMissing: see ``read_lag``.
    """
    lags = await read_lag(options)
    events = [event async for event in read_topics(options, SHOWN) if project in (None, event.project)]
    local = local_urls(wheel.services) if wheel else {}
    answers = await ask_health([*local.values(), *(url for url in health_urls if url not in local.values())])
    here, own = dict(zip(local, answers, strict=False)), wheel.services if wheel else {}
    elsewhere = by_name(answers[len(local) :], taken=own)
    return WheelReport(
        lags=lags,
        refused=await dead_letter_counts(options),
        projects=fold(events),
        services={**own, **as_services(elsewhere)},
        warnings=warnings_of({**here, **elsewhere}),
    )


MODEL_TOPICS = (topics.MODEL_REGISTERED, topics.MODEL_PROMOTED, topics.MODEL_ROLLEDBACK)


@dataclass(slots=True)
class RegisteredModel:
    """One model: its registration and its stage."""

    registration: ModelRegistered
    stage: Stage = Stage.REGISTERED

    @property
    def about(self) -> str:
        """What a base model's own files say about it, in one line."""
        facts = self.registration.base_facts
        if facts is None:
            return ""
        template = facts.chat_template_sha256
        facts_in_words = (
            facts.license,
            facts.parameters and f"{facts.parameters / 1e6:,.0f}M parameters",
            facts.context_length and f"context {facts.context_length:,}",
            template and f"chat template {template[:12]}",
        )
        return ", ".join(part for part in facts_in_words if part)

    def as_json(self) -> dict[str, Any]:
        """Return the model for machines."""
        return self.registration.model_dump(mode="json", exclude={"adapter"}) | {"stage": self.stage.value}


def fold_models(events: Iterable[Envelope[Any]]) -> list[RegisteredModel]:
    """Return every model in the order of registration. Events are applied in the order of their time."""
    ordered = sorted(events, key=lambda event: event.time)
    found: dict[tuple[str, str], RegisteredModel] = {}
    for event in ordered:  # a base model has one id in every project
        if isinstance(event.data, ModelRegistered):
            found.setdefault((event.project, event.data.model_id), RegisteredModel(event.data))
    for event in ordered:
        model = found.get((event.project, event.data.model_id))
        if model is not None and not isinstance(event.data, ModelRegistered):
            promoted = isinstance(event.data, ModelPromoted)
            model.stage = event.data.to_stage if promoted else Stage.ROLLED_BACK
    return list(found.values())
