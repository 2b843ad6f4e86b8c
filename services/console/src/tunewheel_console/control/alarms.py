"""``GET /v1/projects/{project}/alarms``, one alarm, and ``GET /v1/projects/{project}/detectors``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.alarms import AlarmDetail, AlarmSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import project_of, resolve
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

AlarmState = Literal["open", "resolved"]


def add_alarms(web: FastAPI, state: ConsoleState) -> None:
    """Add the routes of alarms and of detectors."""

    @web.get("/v1/projects/{project}/alarms")
    @needs(Role.VIEWER)
    async def list_alarms(
        project: str,
        asked: Paged,
        only: Annotated[AlarmState | None, Query(alias="state")] = None,
    ) -> Page[AlarmSummary]:
        """The alarms, newest first."""
        view = project_of(state, project)
        still = view.wheel.open_alarms
        found = [name for name in view.wheel.facts.alarms if only in (None, _state(name, still))]

        def place(name: str) -> tuple[datetime, str]:
            return view.wheel.facts.alarms[name].time, name

        return page_of(found, asked, place=place, answer=lambda name: alarm_summary(view, name, still))

    @web.get("/v1/projects/{project}/alarms/{alarm_id}")
    @needs(Role.VIEWER)
    async def show_alarm(project: str, alarm_id: str) -> AlarmDetail:
        """An alarm with its figures, and what was done about it."""
        view = project_of(state, project)
        alarms = view.wheel.facts.alarms
        newest = sorted(alarms, key=lambda name: (alarms[name].time, name), reverse=True)
        return _detail(view, resolve(alarm_id, newest, field="alarm_id", project=project))

    @web.get("/v1/projects/{project}/detectors")
    @needs(Role.VIEWER)
    async def list_detectors(project: str, asked: Paged) -> Page[WindowJudged]:
        """The newest figures of each detector, alarm or not, with those of the windows before. The detector
        that was judged last comes first."""
        found = state.detectors_of(project_of(state, project))
        return page_of(found, asked, place=lambda one: (one.judged_at, one.detector), answer=lambda one: one)


def alarm_summary(project: Project, name: str, still: dict[str, Any]) -> AlarmSummary:
    """Describe an alarm. ``still`` are the open alarms."""
    return AlarmSummary(**_fields(project, name, still))


def _detail(project: Project, name: str) -> AlarmDetail:
    facts = project.wheel.facts
    data = facts.alarms[name].data
    more: dict[str, Any] = {}
    if isinstance(data, DriftDetected):
        more = data.model_dump(include={"p_value", "threshold", "reference", "evidence"})
        more["window"] = data.window.model_dump(mode="json")
    if data.cluster is not None:
        more |= {"prompts": data.cluster.prompts, "completion_ids": data.cluster.completion_ids}
    return AlarmDetail(
        **_fields(project, name, project.wheel.open_alarms),
        **more,
        resolved=project.resolved.get(name),
        labels=tuple(key for key, one in project.labels.by_id.items() if one.data.alarm_id == name),
        turns=tuple(turn.turn_id for turn in project.wheel.turns if name in turn.alarms),
    )


def _fields(project: Project, name: str, still: dict[str, Any]) -> dict[str, Any]:
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
        "state": _state(name, still),
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


def _state(name: str, still: dict[str, Any]) -> AlarmState:
    return "open" if name in still else "resolved"
