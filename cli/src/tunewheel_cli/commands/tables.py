"""Tables of ``status``, ``admin acls`` and ``key list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from tunewheel_contracts.api.services import GroupLag
from tunewheel_local.run_state import RunState
from tunewheel_wheel.report import report

from tunewheel_cli.acls import PRINCIPALS, Acl
from tunewheel_cli.wheel_report import ProjectStatus, WheelReport

if TYPE_CHECKING:
    from tunewheel_runtime.identity.keys import ApiKey


LAST_CHARACTERS = 100
"""Of a project's last event: a verdict's reasons would fill the screen; a scorecard tells them."""


def print_status(wheel: RunState | None, report: WheelReport) -> None:
    """Print processes, their warnings, consumer groups and projects. ``wheel``: the one on this machine."""
    console = Console(highlight=False)
    if report.services:
        console.print(_services(report.services))
    if wheel is not None:
        console.print(_identity(wheel))
    for name, texts in report.warnings.items():
        for text in texts:
            console.print(f"[red]{escape(name)} warns:[/] {escape(text)}")
    _print_groups(console, report)
    if report.refused:
        counts = ", ".join(f"{name} {count:,}" for name, count in report.refused.items())
        console.print(f"[yellow]refused:[/] {escape(counts)} (see `tunewheel dead-letter list`)")
    console.print(_projects(report.projects) if report.projects else "no project is declared")
    for project in report.projects.values():
        _print_turns(console, project)


def _print_groups(console: Console, report: WheelReport) -> None:
    members: dict[str, int] = {}
    for lag in report.lags:
        if lag.hosts and lag.service:  # each process of a service, even a standby, is in all its groups
            members[lag.service] = max(members.get(lag.service, 0), len(lag.hosts))
    if members and not report.services:
        console.print("processes: " + ", ".join(f"{name} {count}" for name, count in members.items()))
    late = [lag for lag in report.lags if lag.behind]
    if late:
        console.print(_lag(late))
    elif read := {lag.group for lag in report.lags if lag.hosts}:
        console.print(f"{len(read)} consumer groups are at the end of the log")
    if hidden := report.hidden_groups:
        console.print(
            f"[yellow]not shown:[/] this client may not see the groups {escape(', '.join(hidden))}; "
            "grant its principal the rights that `tunewheel admin acls viewer` prints"
        )
    if silent := report.silent_services:
        console.print(
            f"[yellow]no process reads the log for:[/] {', '.join(silent)} (start it, unless it is "
            "switched off on purpose)"
        )


def _print_turns(console: Console, project: ProjectStatus) -> None:
    """Print the project's alarms and turns, and then what a person should do."""
    lines = report(project.wheel, datetime.now(UTC))
    if lines:
        console.print(f"\n[bold]{escape(project.project)}[/]")
    for line in lines:
        colour = {"alarm": "red", "to do": "yellow"}.get(line.about, "default")
        console.print(Padding(f"[{colour}]{line.about}:[/] {escape(line.text)}", (0, 0, 0, 2)))


def print_acls(acls: Sequence[Acl], principals: Mapping[str, str]) -> None:
    """Print each principal with one line per topic or group. ``principals``: Kafka's names by ours."""
    console = Console(highlight=False)
    for name, called in principals.items():
        table = Table(box=None, pad_edge=False, show_header=False)
        for acl in acls:
            if acl.name == name:
                table.add_row(f"  {acl.kind}", acl.resource, ", ".join(acl.operations))
        console.print(f"[bold]{escape(called)}[/]  {escape(PRINCIPALS[name])}")
        console.print(table)


def _identity(wheel: RunState) -> str:
    if wheel.identity == "open":
        return "[yellow]identity is open:[/] whoever reaches a service may do everything"
    return f"callers are known by the keys in {escape(wheel.keys_file)}"


def print_keys(keys: Mapping[str, ApiKey]) -> None:
    """Print one line per key."""
    table = Table("name", "roles", "projects", "groups", "keys", box=None, pad_edge=False)
    for name, entry in keys.items():
        roles = entry.roles if "roles" in entry.model_fields_set or not entry.groups else ()
        projects = "all" if entry.projects is None else ", ".join(entry.projects)
        cells = (name, ", ".join(roles), projects, ", ".join(entry.groups), str(len(entry.sha256)))
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)


def _services(services: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("service", "state", "pid", "where", "restarts", "", box=None, pad_edge=False)
    for name, service in services.items():
        colour = {"ready": "green", "failed": "red"}.get(service["state"], "yellow")
        table.add_row(
            escape(name),
            f"[{colour}]{escape(service['state'])}[/]",
            str(service["pid"] or ""),
            escape(service["url"]),
            str(service["restarts"] or ""),
            escape(service["note"]),
        )
    return table


def _lag(lags: Sequence[GroupLag]) -> Table:
    table = Table("consumer group", "behind", "processes", box=None, pad_edge=False)
    for lag in lags:
        table.add_row(escape(lag.group), f"{lag.behind:,}", str(len(lag.hosts) or ""))
    return table


def _projects(projects: Mapping[str, ProjectStatus]) -> Table:
    table = Table("project", "is", "since", "serves", "turns", "last", box=None, pad_edge=False)
    for project in projects.values():
        since = project.latest.time.astimezone().strftime("%H:%M:%S") if project.latest else ""
        turns = "{datasets} datasets, {runs} runs, {promoted} promoted".format(**project.counts)
        last = shorten(project.last, LAST_CHARACTERS, placeholder=" …")
        cells = (project.project, project.place, since, project.serving, turns, last)
        table.add_row(*map(escape, cells))
    return table
