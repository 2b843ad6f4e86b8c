# Generated from aio/projects.py by scripts/client_sync.py; change that file instead.
"""Projects."""

from __future__ import annotations

from typing import Unpack

from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.projects import ProjectDetail, ProjectSummary

from tunewheel_client.sync.resource import Paging, Resource


class Projects(Resource):
    """The projects that the caller may read."""

    def list(self, **paging: Unpack[Paging]) -> Page[ProjectSummary]:
        """Return a page of projects."""
        return self._read(Page[ProjectSummary], **paging)

    def show(self, project: str) -> ProjectDetail:
        """Return a project's spec, its place on the wheel, and what to do next."""
        return self._read(ProjectDetail, project)
