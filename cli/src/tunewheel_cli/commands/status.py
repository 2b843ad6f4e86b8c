"""status."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.calling import Call, calling, named_project
from tunewheel_cli.exits import plain

if TYPE_CHECKING:
    from tunewheel_contracts.api.projects import ProjectDetail
    from tunewheel_contracts.api.services import Services
    from tunewheel_local.run_state import RunState

MOST_PROJECTS = 20
"""Of more projects the list is shown without their reports."""


@calling
def command(
    call: Call,
    only: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
    ] = None,
) -> None:
    """Show who reads the log, how far they are behind, and where each project is on the wheel.

    Of each project: its open alarms, what curate decided about them and why it waits, the turn in flight, how
    the last turn ended, and what a person should do next. Processes are shown where they run here.
    """
    from tunewheel_local.places import Var
    from tunewheel_local.run_state import living

    here = living(Var.at(call.var).run_file)
    if here is not None and here.url_of("console") not in (None, call.target.context.url):
        here = None  # a wheel elsewhere is meant
    health = asyncio.run(_warnings(here)) if here else {}
    if here is not None and here.url_of("console") is None:
        services, projects = None, []
    else:
        services, projects = call.client.services.list(), _projects(call, only)
    value = {
        "running": here is not None,
        "identity": {"mode": here.identity, "keys_file": here.keys_file} if here else None,
        "services": here.services if here else {},
        "lag": plain(services.groups) if services else [],
        "hidden_groups": plain(services.hidden) if services else [],
        "without_a_process": plain(services.silent) if services else [],
        "warnings": health,
        "projects": plain(projects),
    }
    call.show(value, lambda: _print(here, health, services, projects))


def _projects(call: Call, only: str | None) -> list[Any]:
    """Return each project with its report, or the list where there are many."""
    projects = call.client.projects
    if only is not None:
        return [projects.show(only)]
    page = projects.list(limit=1000)
    if page.total > MOST_PROJECTS:
        return [*page.items]
    return [projects.show(one.project) for one in page.items]


async def _warnings(wheel: RunState) -> dict[str, list[str]]:
    from tunewheel_cli.service_health import ask_health, local_urls, warnings_of

    urls = local_urls(wheel.services)
    return dict(warnings_of(dict(zip(urls, await ask_health([*urls.values()]), strict=True))))


def _print(
    wheel: RunState | None, warnings: dict[str, Any], services: Services | None, projects: list[ProjectDetail]
) -> None:
    from tunewheel_cli.texts import flat, print_table

    if wheel is not None:
        rows = [
            (name, one["state"], one["pid"] or "", one["url"], one["restarts"] or "", one["note"])
            for name, one in wheel.services.items()
        ]
        print_table(("service", "state", "pid", "where", "restarts", ""), rows)
        if wheel.identity == "open":
            print("identity is open: whoever reaches a service may do everything")
    for name, texts in warnings.items():
        for text in texts:
            print(f"{name} warns: {flat(text)}")
    if services is not None:
        _print_groups(services)
        columns = ("project", "is", "since", "serves", "last")
        shown = [(one.project, one.place, one.since, one.serving, one.last) for one in projects]
        _ = (
            print_table(columns, shown, shorten=("last", "serves"))
            if shown
            else print("no project is declared")
        )
    for project in projects:
        report = getattr(project, "report", ())
        if report:
            print(f"\n{project.project}")
        for line in report:
            print(f"  {line.about}: {flat(line.text)}")


def _print_groups(services: Services) -> None:
    from tunewheel_cli.texts import print_table

    late = [(one.group, one.topic, one.behind, len(one.hosts)) for one in services.groups if one.behind]
    if late:
        print_table(("consumer group", "topic", "behind", "processes"), late)
    elif read := {one.group for one in services.groups if one.hosts}:
        print(f"{len(read)} consumer groups are at the end of the log")
    if services.hidden:
        print(f"not shown: the console may not see the groups {', '.join(services.hidden)}")
    if services.silent:
        advice = "start it, unless it is switched off on purpose"
        print(f"no process reads the log for: {', '.join(services.silent)} ({advice})")
