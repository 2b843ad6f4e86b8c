"""``GET /v1/audit``: every command of people on the log, as a page, or as one JSON Lines or CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from tunewheel_contracts.api.audit import AuditEntry
from tunewheel_contracts.api.paging import Page
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.commands import Commands, Given
from tunewheel_console.control.commands import told_of
from tunewheel_console.control.paging import NEVER, Paged, Place, page_of
from tunewheel_console.state import ConsoleState

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
    """Return what the audit tells of a project's commands."""
    return tuple(entry_of(commands, one) for one in commands.by_id.values())


def _entries(state: ConsoleState, project: str | None) -> Iterator[AuditEntry]:
    projects = [one for name, one in state.projects.items() if project in (None, name)]
    resting = (one for name, one in state.projects.resting.items() if project in (None, name))
    return chain(*(audit_of(one.commands) for one in projects), *(one.audit for one in resting))


def _place(entry: AuditEntry) -> Place:
    return entry.at or NEVER, entry.command_id


def entry_of(commands: Commands, command: Given) -> AuditEntry:
    who = command.principal
    return AuditEntry(
        **told_of(commands, command),
        principal=who.name if who else None,
        issuer=who.issuer if who else None,
        door=command.door,
        signed_by=command.signed_by,
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
