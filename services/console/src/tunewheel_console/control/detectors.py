"""``GET /v1/projects/{project}/detectors``."""

from __future__ import annotations

from datetime import datetime

from fastapi import FastAPI
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import project_of
from tunewheel_console.state import ConsoleState


def add_detectors(web: FastAPI, state: ConsoleState) -> None:
    """Add the route of detectors."""

    @web.get("/v1/projects/{project}/detectors")
    @needs(Role.VIEWER)
    async def list_detectors(project: str, asked: Paged) -> Page[WindowJudged]:
        """The newest figures of each detector, alarm or not, with those of the windows before. The detector
        that was judged last comes first."""

        def place(one: WindowJudged) -> tuple[datetime, str]:
            return one.judged_at, one.detector

        found = state.detectors_of(project_of(state, project))
        return page_of(found, asked, place=place, answer=lambda one: one)
