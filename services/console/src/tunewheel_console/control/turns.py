"""``GET /v1/projects/{project}/turns`` and one turn."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.turns import TurnDetail, TurnSummary
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_wheel.report import stage_of
from tunewheel_wheel.turn import Turn

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import project_of, resolve
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

TurnState = Literal["in flight", "ended"]


def add_turns(web: FastAPI, state: ConsoleState) -> None:
    """Add the routes of turns."""

    @web.get("/v1/projects/{project}/turns")
    @needs(Role.VIEWER)
    async def list_turns(
        project: str,
        asked: Paged,
        only: Annotated[TurnState | None, Query(alias="state")] = None,
    ) -> Page[TurnSummary]:
        """The turns, newest first."""
        found = [turn for turn in project_of(state, project).wheel.turns if only in (None, _state(turn))]
        return page_of(found, asked, place=_place, answer=turn_summary)

    @web.get("/v1/projects/{project}/turns/{turn_id}")
    @needs(Role.VIEWER)
    async def show_turn(project: str, turn_id: str) -> TurnDetail:
        """A turn with its request, its stage and its outcome."""
        return turn_detail(turn_of(project_of(state, project), turn_id))


def turn_of(project: Project, asked: str) -> Turn:
    """Return the turn. Raises ``Refused`` as ``resolve``."""
    turns = {turn.turn_id: turn for turn in sorted(project.wheel.turns, key=_place, reverse=True)}
    return turns[resolve(asked, turns, field="turn_id", project=project.name)]


def turn_summary(turn: Turn) -> TurnSummary:
    return TurnSummary(**_fields(turn))


def turn_detail(turn: Turn) -> TurnDetail:
    asked = turn.request.data
    return TurnDetail(
        **_fields(turn),
        served_at=turn.course.served_at,
        request=asked.request,
        asked_by=asked.principal.name if asked.principal else None,
        completed=turn.completed.data if turn.completed else None,
        revisions=turn.revisions,
    )


def _fields(turn: Turn) -> dict[str, Any]:
    asked = turn.request.data
    return {
        "turn_id": turn.turn_id,
        "project": asked.project,
        "reason": asked.reason.value,
        "stage": turn.stage.value,
        "state": _state(turn),
        "stage_in_words": stage_of(turn),
        "end": turn.end.value if turn.end is not None else None,
        "outcome": turn.completed.data.outcome if turn.completed else None,
        "alarm_ids": turn.alarms,
        "dataset_id": turn.dataset_id,
        "run_id": turn.course.run_id,
        "model_id": turn.course.model_id,
        "began_at": turn.request.time,
        "since": turn.since,
        "news_at": turn.news_at,
    }


def _state(turn: Turn) -> TurnState:
    return "in flight" if turn.end is None else "ended"


def _place(turn: Turn) -> tuple[datetime, str]:
    return turn.request.time, turn.turn_id
