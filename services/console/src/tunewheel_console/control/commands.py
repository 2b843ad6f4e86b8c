"""``GET /v1/projects/{project}/commands`` and one command: what became of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query
from tunewheel_contracts.api.commands import Command, State
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
from tunewheel_console.control.paging import Paged, Place, page_of
from tunewheel_console.control.resolving import project_of, resolve
from tunewheel_console.state import ConsoleState


def add_commands(api: FastAPI, state: ConsoleState, store: ObjectStore, log: Log) -> None:
    """Add the routes."""

    @api.get("/v1/projects/{project}/commands")
    @needs(Role.VIEWER)
    async def list_commands(
        project: str, asked: Paged, only: Annotated[State | None, Query(alias="state")] = None
    ) -> Page[Command]:
        """The commands of people, newest first."""
        commands = project_of(state, project).commands
        own = [one for one in commands.by_id.values() if only in (None, commands.outcome(one).state)]
        return page_of(own, asked, place=place, answer=lambda one: Command(**told_of(commands, one)))

    @api.get("/v1/projects/{project}/commands/{command_id}")
    @needs(Role.VIEWER)
    async def show_command(project: str, command_id: str) -> Command:
        """Whether a command waits, was carried out, or was refused and why."""
        view = state.projects.get(project)
        if view is None or command_id not in view.commands.by_id:  # another console may have taken it
            await log.refresh()
        commands = project_of(state, project).commands
        newest = [one.command_id for one in sorted(commands.by_id.values(), key=place, reverse=True)]
        found = commands.by_id[resolve(command_id, newest, field="command_id", project=project)]
        told = told_of(commands, found)
        if told["state"] == "waiting" and found.type == EvalRequested.type:
            told |= await _informing(found, store)
        return Command(**told)


def place(command: Given) -> Place:
    return command.at, command.command_id


def told_of(commands: Commands, command: Given) -> dict[str, Any]:
    """Return the fields of ``Command``."""
    outcome = commands.outcome(command)
    return {
        "command_id": command.command_id,
        "project": command.project,
        "state": outcome.state,
        "type": command.type,
        "at": command.at,
        "action": command.action,
        "target": command.target,
        "answered_by": outcome.by,
        "answered_at": outcome.at,
        "led_to": outcome.led_to,
        "field": outcome.field,
        "reason": outcome.reason,
    }


async def _informing(command: Given, store: ObjectStore) -> dict[str, Any]:
    """Return what is told of an evaluation that is finished and gives no verdict, and so no event."""
    note = await store.read(request_path(command.target, command.command_id))
    if note is None:
        return {}
    name = EvaluationRequest.model_validate_json(note).evaluation_id
    plan = await store.read(later_plan_path(command.target, name))
    if plan is None or await store.read(EvaluationPlan.model_validate_json(plan).scorecard_path) is None:
        return {}
    return {"state": "done", "led_to": name}
