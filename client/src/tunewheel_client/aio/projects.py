"""Projects."""

from __future__ import annotations

from typing import Unpack

from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.projects import ProjectDetail, ProjectSummary

from tunewheel_client.aio.resource import Paging, Resource


class Projects(Resource):
    """The projects that the caller may read."""

    async def list(self, **paging: Unpack[Paging]) -> Page[ProjectSummary]:
        """Return a page of projects."""
        return await self._read(Page[ProjectSummary], **paging)

    async def show(self, project: str) -> ProjectDetail:
        """Return a project's spec, its place on the wheel, and what to do next."""
        return await self._read(ProjectDetail, project)
