"""``GET /v1/projects`` and one project: where it is on the wheel, and what is to be done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.projects import ProjectCounts, ProjectDetail, ProjectSummary, ReportLine
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_wheel.describing import routes_in_words
from tunewheel_wheel.report import next_steps, report
from tunewheel_wheel.summary import counts_of, last_in_words, latest_of, place_in_words
from tunewheel_wheel.waits import waits_of

from tunewheel_console.control.commands import audit_of
from tunewheel_console.control.paging import NEVER, Paged, page_of
from tunewheel_console.control.resolving import View
from tunewheel_console.control.turns import alarm_summary, turn_summary
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState, Rest


def add_projects(web: FastAPI, state: ConsoleState) -> None:
    @web.get("/v1/projects")
    @needs(Role.VIEWER)
    async def list_projects(
        request: Request,
        asked: Paged,
        waiting: Annotated[bool, Query(description="Only those that ask people for something.")] = False,
    ) -> Page[ProjectSummary]:
        """The projects that the caller may read, the last moved first."""
        caller, found = caller_of(request), [summary_of(one) for one in state.projects.values()]
        found += (one.summary for one in state.projects.resting.values() if one.summary is not None)
        found = [
            one
            for one in found
            if caller.may(Role.VIEWER, one.project)
            and (not waiting or one.counts.labels_waiting or one.counts.reviews_waiting)
        ]
        return page_of(found, asked, place=_place, answer=lambda one: one)

    @web.get("/v1/projects/{project}")
    @needs(Role.VIEWER)
    async def show_project(view: View) -> ProjectDetail:
        """A project with its spec, its open alarms and turns, and what a person should do."""
        return _detail(view, datetime.now(UTC))


def summary_of(project: Project) -> ProjectSummary:
    if project.described is None or project.described[0] != project.version:
        project.described = project.version, ProjectSummary(**_fields(project))
    return project.described[1]


def _fields(project: Project) -> dict[str, Any]:
    wheel, latest, counts = project.wheel, latest_of(project.wheel), counts_of(project.wheel)
    desired = project.desired.desired if project.desired else None
    return {
        "project": project.name,
        "declared": project.spec is not None,
        "place": place_in_words(wheel),
        "since": latest.time if latest else None,
        "last": last_in_words(wheel),
        "champion": desired.model_id("champion") if desired else None,
        "serving": routes_in_words(project.desired) if project.desired else "nothing",
        "counts": ProjectCounts(
            datasets=counts["datasets"],
            runs=counts["runs"],
            promoted=counts["promoted"],
            alarms=counts["drifts"],
            open_alarms=len(wheel.open_alarms),
            labels_waiting=len(project.labels.waiting),
            reviews_waiting=len(project.reviews.waiting) + len(project.pending_reviews),
        ),
    }


def _detail(project: Project, now: datetime) -> ProjectDetail:
    wheel = project.wheel
    facts, still = wheel.facts, wheel.open_alarms
    return ProjectDetail(
        **_fields(project),
        spec=project.spec.model_dump(mode="json", exclude_unset=True) if project.spec else None,
        declared_at=facts.declared.time if facts.declared and project.spec else None,
        routes=project.desired.desired.routes if project.desired else (),
        generation=project.desired.generation if project.desired else None,
        pinned=project.pinned,
        alarms=tuple(alarm_summary(project, name, still) for name in still),
        decision=facts.decision.data if facts.decision else None,
        in_flight=tuple(turn_summary(turn) for turn in wheel.in_flight(now)),
        last_turn=wheel.last,
        reviews_of_scorecards=tuple(run.run_id for run in project.pending_reviews),
        spent=project.desired.spent if project.desired else 0.0,
        next_steps=tuple(next_steps(wheel, now)),
        report=tuple(ReportLine(about=line.about, text=line.text) for line in report(wheel, now)),
    )


def _place(one: ProjectSummary) -> tuple[datetime, str]:
    return one.since or NEVER, one.project


def is_asked(project: Project) -> bool:
    """Return whether people are asked for something. Such a project stays in memory."""
    return bool(project.reviews.waiting or project.labels.waiting or project.pending_reviews)


def rest_of(project: Project) -> Rest:
    return Rest(
        summary=summary_of(project), audit=audit_of(project.commands), is_asked=is_asked(project),
        waits=waits_of(project.wheel, datetime.now(UTC)) if project.spec is not None else {},
        is_behind=False,
    )  # fmt: skip
