"""Turns, alarms and detectors of a project."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.alarms import AlarmDetail, AlarmSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.turns import TurnDetail, TurnSummary
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_wheel.report import stage_of
from tunewheel_wheel.turn import Turn

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import View, find
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

TurnState = Literal["in flight", "ended"]


def add_turns(web: FastAPI) -> None:
    @web.get("/v1/projects/{project}/turns")
    @needs(Role.VIEWER)
    async def list_turns(
        view: View,
        asked: Paged,
        only: Annotated[TurnState | None, Query(alias="state")] = None,
    ) -> Page[TurnSummary]:
        """The turns, newest first."""
        found = [turn for turn in view.wheel.turns if only in (None, _state(turn))]
        return page_of(found, asked, place=_place, answer=turn_summary)

    @web.get("/v1/projects/{project}/turns/{turn_id}")
    @needs(Role.VIEWER)
    async def show_turn(view: View, turn_id: str) -> TurnDetail:
        """A turn with its request, its stage and its outcome."""
        return turn_detail(turn_of(view, turn_id))


def turn_of(project: Project, asked: str) -> Turn:
    turns = {turn.turn_id: turn for turn in project.wheel.turns}
    return find(asked, turns, _place, field="turn_id", project=project.name)


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


AlarmState = Literal["open", "resolved"]


def add_alarms(web: FastAPI, state: ConsoleState) -> None:
    @web.get("/v1/projects/{project}/alarms")
    @needs(Role.VIEWER)
    async def list_alarms(
        view: View,
        asked: Paged,
        only: Annotated[AlarmState | None, Query(alias="state")] = None,
    ) -> Page[AlarmSummary]:
        """The alarms, newest first."""
        still = view.wheel.open_alarms
        found = [name for name in view.wheel.facts.alarms if only in (None, _alarm_state(name, still))]

        def place(name: str) -> tuple[datetime, str]:
            return view.wheel.facts.alarms[name].time, name

        return page_of(found, asked, place=place, answer=lambda name: alarm_summary(view, name, still))

    @web.get("/v1/projects/{project}/alarms/{alarm_id}")
    @needs(Role.VIEWER)
    async def show_alarm(view: View, alarm_id: str) -> AlarmDetail:
        """An alarm with its figures, and what was done about it."""
        alarms = {name: (one.time, name) for name, one in view.wheel.facts.alarms.items()}
        (_, name) = find(alarm_id, alarms, lambda one: one, field="alarm_id", project=view.name)
        return _alarm_detail(view, name)

    @web.get("/v1/projects/{project}/detectors")
    @needs(Role.VIEWER)
    async def list_detectors(view: View, asked: Paged) -> Page[WindowJudged]:
        """The newest figures of each detector, alarm or not, with those of the windows before. The detector
        that was judged last comes first."""
        found = state.detectors_of(view)
        return page_of(found, asked, place=lambda one: (one.judged_at, one.detector), answer=lambda one: one)


def alarm_summary(project: Project, name: str, still: dict[str, Any]) -> AlarmSummary:
    """Describe an alarm. ``still`` are the open alarms."""
    return AlarmSummary(**_alarm_fields(project, name, still))


def _alarm_detail(project: Project, name: str) -> AlarmDetail:
    facts = project.wheel.facts
    data = facts.alarms[name].data
    more: dict[str, Any] = {}
    if isinstance(data, DriftDetected):
        more = data.model_dump(include={"p_value", "threshold", "reference", "evidence"})
        more["window"] = data.window.model_dump(mode="json")
    if data.cluster is not None:
        more |= {"prompts": data.cluster.prompts, "completion_ids": data.cluster.completion_ids}
    return AlarmDetail(
        **_alarm_fields(project, name, project.wheel.open_alarms),
        **more,
        resolved=project.resolved.get(name),
        labels=tuple(key for key, one in project.labels.by_id.items() if one.data.alarm_id == name),
        turns=tuple(turn.turn_id for turn in project.wheel.turns if name in turn.alarms),
    )


def _alarm_fields(project: Project, name: str, still: dict[str, Any]) -> dict[str, Any]:
    facts = project.wheel.facts
    alarm = facts.alarms[name]
    data = alarm.data
    decided = facts.decision.data.alarms if facts.decision is not None and name in still else ()
    figures = {
        figure: getattr(data, figure, None)
        for figure in ("effect", "effect_unit", "statistic", "statistic_name")
    }
    return {
        "alarm_id": name,
        "project": project.name,
        "state": _alarm_state(name, still),
        "detector": data.signal or data.detector,
        "since": alarm.time,
        "resolved_at": facts.resolved.get(name),
        "suggested_action": data.suggested_action,
        "keywords": data.cluster.keywords if data.cluster else (),
        **figures,
        "dataset_id": data.dataset_id,
        "model_id": data.model_id,
        "answer": next((one for one in decided if one.alarm_id == name), None),
    }


def _alarm_state(name: str, still: dict[str, Any]) -> AlarmState:
    return "open" if name in still else "resolved"
