"""The report of ``tunewheel status``, from Kafka and from processes: where each project is on the wheel, and
who reads the log. Also the registered models and their stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelRegistered, ServingDesired, Stage
from tunewheel_local.connection import unreachable
from tunewheel_local.run_state import RunState
from tunewheel_runtime.lag import read_lag, silent_services
from tunewheel_wheel.describing import describe
from tunewheel_wheel.facts import TOPICS, Facts
from tunewheel_wheel.report import as_json
from tunewheel_wheel.summary import counts_of, last_in_words, latest_of, place_in_words
from tunewheel_wheel.wheel import Wheel

from tunewheel_cli.dead_letters import dead_letter_counts
from tunewheel_cli.reading import reachable, read_topics
from tunewheel_cli.service_health import as_services, ask_health, by_name, local_urls, warnings_of

SHOWN = (*TOPICS, topics.SERVING_DESIRED)
"""The topics from which a status is made. Busy topics (tickets, records, completions) are not among them."""


@dataclass(slots=True)
class ProjectStatus:
    """One project: its place on the wheel, the model in production, and its last events."""

    project: str
    serving: str = "nothing"
    wheel: Wheel = field(default_factory=Wheel)

    def apply(self, envelope: Envelope[Any]) -> None:
        self.wheel.apply(envelope)
        if isinstance(envelope.data, ServingDesired):
            self.serving = describe(envelope)

    @property
    def place(self) -> str:
        """Where the project is; empty: it was never declared."""
        return place_in_words(self.wheel)

    @property
    def latest(self) -> Envelope[Any] | None:
        return latest_of(self.wheel)

    @property
    def last(self) -> str:
        return last_in_words(self.wheel)

    @property
    def counts(self) -> dict[str, int]:
        return counts_of(self.wheel)

    def as_json(self) -> dict[str, Any]:
        """Return the status for machines."""
        return {
            "project": self.project,
            "place": self.place,
            "since": self.latest.time if self.latest else None,
            "last": self.last,
            "serving": self.serving,
            **self.counts,
            "turns": as_json(self.wheel, datetime.now(UTC)),
        }


def fold(events: Iterable[Envelope[Any]]) -> dict[str, ProjectStatus]:
    """Return the status of every declared project. What is served last is applied last."""
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
    async with reachable(options):
        lags = await read_lag(options, explain=unreachable)
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
    """Return every model in the order of registration."""
    projects: defaultdict[str, Facts] = defaultdict(Facts)  # a base model has one id in every project
    for event in events:
        projects[event.project].apply(event)
    registered = [
        (one.time, RegisteredModel(one.data, facts.models.stages.get(name, Stage.REGISTERED)))
        for facts in projects.values()
        for name, one in facts.models.registrations.items()
    ]
    return [model for _, model in sorted(registered, key=lambda one: one[0])]
