"""Commands of people and what became of them: those of a project, and ``GET /v1/audit`` with all of them, as
a page, or as one JSON Lines or CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from tunewheel_contracts.api.commands import AuditEntry, Command, State
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.formats.evaluation_plan import (
    EvaluationPlan,
    EvaluationRequest,
    later_plan_path,
    request_path,
)
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.commands import Commands, Given
from tunewheel_console.control.log import Log
from tunewheel_console.control.paging import NEVER, Paged, Place, page_of
from tunewheel_console.control.resolving import View, find, project_of, told
from tunewheel_console.state import ConsoleState


def add_commands(api: FastAPI, state: ConsoleState, store: ObjectStore, log: Log) -> None:
    @api.get("/v1/projects/{project}/commands")
    @needs(Role.VIEWER)
    async def list_commands(
        view: View, asked: Paged, only: Annotated[State | None, Query(alias="state")] = None
    ) -> Page[Command]:
        """The commands of people, newest first."""
        commands = view.commands
        own = [one for one in commands.by_id.values() if only in (None, commands.outcome(one).state)]
        return page_of(own, asked, place=place, answer=lambda one: command_of(commands, one))

    @api.get("/v1/projects/{project}/commands/{command_id}")
    @needs(Role.VIEWER)
    async def show_command(project: str, command_id: str) -> Command:
        """Whether a command waits, was carried out, or was refused and why."""
        view = state.projects.get(project)
        if view is None or command_id not in view.commands.by_id:  # another console may have taken it
            await log.refresh()
        commands = project_of(state, project).commands
        found = find(command_id, commands.by_id, place, field="command_id", project=project)
        informs = commands.outcome(found).state == "waiting" and found.type == EvalRequested.type
        return command_of(commands, found, **(await _informing(found, store) if informs else {}))


def place(command: Given) -> Place:
    return command.at, command.command_id


def command_of(commands: Commands, command: Given, **more: Any) -> Command:
    outcome = commands.outcome(command)
    return told(Command, outcome, command, answered_by=outcome.by, answered_at=outcome.at, **more)


async def _informing(command: Given, store: ObjectStore) -> dict[str, Any]:
    """Return what is told of an evaluation that is finished and gives no verdict, and so no event."""
    note = await store.document(request_path(command.target, command.command_id), EvaluationRequest)
    if note is None:
        return {}
    plan = await store.document(later_plan_path(command.target, note.evaluation_id), EvaluationPlan)
    if plan is None or not await store.exists(plan.scorecard_path):
        return {}
    return {"state": "done", "led_to": note.evaluation_id}


FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""How cells begin that a spreadsheet would compute."""


def add_audit(api: FastAPI, state: ConsoleState) -> None:
    """Add the route, for operators of all projects."""
    exports: dict[str, Callable[[Iterator[AuditEntry]], Iterator[str]]] = {
        "application/jsonl": _lines,
        "text/csv": _rows,
    }

    @api.get("/v1/audit", response_model=Page[AuditEntry])
    @needs(Role.OPERATOR, everywhere=True)
    async def show_audit(
        request: Request,
        asked: Paged,
        project: Annotated[str | None, Query(description="Only commands of this project.")] = None,
        principal: Annotated[str | None, Query(description="Only commands of this person or key.")] = None,
    ) -> Page[AuditEntry] | Response:
        """The commands of people, newest first. ``Accept: application/jsonl`` or ``text/csv`` exports all of
        them, oldest first."""
        found = [
            one
            for one in _entries(state, project)
            if principal in (None, one.principal or "")
            and (asked.since is None or _place(one)[0] >= asked.since)
        ]
        accepted = request.headers.get("accept", "")
        for kind, export in exports.items():
            if kind in accepted:
                return StreamingResponse(export(iter(sorted(found, key=_place))), media_type=kind)
        return page_of(found, asked, place=_place, answer=lambda one: one)


def audit_of(commands: Commands) -> tuple[AuditEntry, ...]:
    return tuple(entry_of(commands, one) for one in commands.by_id.values())


def _entries(state: ConsoleState, project: str | None) -> Iterator[AuditEntry]:
    projects = [one for name, one in state.projects.items() if project in (None, name)]
    resting = (one for name, one in state.projects.resting.items() if project in (None, name))
    return chain(*(audit_of(one.commands) for one in projects), *(one.audit for one in resting))


def _place(entry: AuditEntry) -> Place:
    return entry.at or NEVER, entry.command_id


def entry_of(commands: Commands, command: Given) -> AuditEntry:
    who = command.principal
    by = {"principal": who.name if who else None, "issuer": who.issuer if who else None}
    return told(
        AuditEntry, command_of(commands, command), door=command.door, signed_by=command.signed_by, **by
    )


def _lines(entries: Iterator[AuditEntry]) -> Iterator[str]:
    return (f"{entry.model_dump_json()}\n" for entry in entries)


def _rows(entries: Iterator[AuditEntry]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(AuditEntry.model_fields)
    yield _taken(buffer)
    for entry in entries:
        writer.writerow(_cell(value) for value in entry.model_dump(mode="json").values())
        yield _taken(buffer)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULAS) else text


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
