"""Gathers the report of ``tunewheel status`` from Kafka and from processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewheel_cli.dead_letters import dead_letter_counts
from tunewheel_cli.lag import GroupLag, read_lag, silent_services
from tunewheel_cli.reading import read_topics
from tunewheel_cli.run_state import RunState
from tunewheel_cli.service_health import as_services, ask_health, by_name, local_urls, warnings_of
from tunewheel_cli.wheel_status import SHOWN, ProjectStatus, fold


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
