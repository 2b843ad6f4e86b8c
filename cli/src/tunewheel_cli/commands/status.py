"""status: shows the state of a wheel, on this machine or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.exits import Exit
from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_local.run_state import RunState

    from tunewheel_cli.wheel_report import WheelReport

HealthUrls = Annotated[
    str | None,
    typer.Option(
        envvar="TUNEWHEEL_HEALTH_URLS",
        help="Ports of health of processes elsewhere, separated by commas.",
        show_default=False,
    ),
]


@reaching
async def status(
    reach: Reach,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    health_urls: HealthUrls = None,
) -> None:
    """Show who reads the log, how far they are behind, and where each project is on the wheel.

    Of each project: its open alarms, what curate decided about them and why it waits, the turn in flight,
    how the last turn ended, and what a person should do next. All of it is read from Kafka; the folder only
    says which Kafka, where no option does. Processes are shown where they run here, or at --health-urls.
    """
    from tunewheel_cli.commands.tables import print_status
    from tunewheel_cli.service_health import parse_health_urls
    from tunewheel_cli.wheel_report import read_report

    wheel = reach.connection.wheel(reach.var)
    urls = parse_health_urls(health_urls)
    report = await read_report(reach.client_options(), wheel, urls, project)
    reach.show(_as_json(wheel, report), lambda: print_status(wheel, report))
    if report.hidden_groups:
        raise typer.Exit(Exit.NOT_ALLOWED)


def _as_json(wheel: RunState | None, report: WheelReport) -> dict[str, Any]:
    return {
        "running": wheel is not None,
        "identity": {"mode": wheel.identity, "keys_file": wheel.keys_file} if wheel else None,
        "services": report.services,
        "lag": [
            {"group": lag.group, "topic": lag.topic, "behind": lag.behind, "hosts": lag.hosts}
            for lag in report.lags
            if lag.visible
        ],
        "hidden_groups": report.hidden_groups,
        "without_a_process": report.silent_services,
        "dead_letters": report.refused,
        "warnings": report.warnings,
        "projects": [found.as_json() for found in report.projects.values()],
    }
