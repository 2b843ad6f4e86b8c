"""Projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.projects import Declaration, ProjectDetail, ProjectSummary

from tunewheel_client.aio.resource import Paging, Resource


class Projects(Resource):
    """The projects that the caller may read."""

    async def list(self, *, waiting: bool = False, **paging: Unpack[Paging]) -> Page[ProjectSummary]:
        """Return a page of projects. ``waiting``: only those that ask people for labels or reviews."""
        return await self._read(Page[ProjectSummary], waiting=waiting or None, **paging)

    async def show(self, project: str) -> ProjectDetail:
        """Return a project's spec, its place on the wheel, and what to do next."""
        return await self._read(ProjectDetail, project)

    async def declare(
        self,
        project: str,
        spec: str | Mapping[str, Any],
        *,
        check: bool = False,
        power: bool = True,
        replaces: str | None = None,
    ) -> Declaration:
        """Put a spec in force, and return cautions about it.

        Args:
            spec: the text of a ``project.yaml``, or its content.
            check: only say what would be said; declare nothing.
            power: simulate how probable a verdict is, which takes seconds.
            replaces: refuse the spec unless the one in force has this SHA-256, which a check tells.

        Raises:
            Refused: the spec is wrong; ``faults`` names every field and its fault.
        """
        query = {"check": check or None, "power": None if power else False, "replaces": replaces}
        if isinstance(spec, str):
            body: dict[str, Any] = {"content": spec, "headers": {"Content-Type": "application/yaml"}}
        else:
            body = {"json": spec}
        return await self._send(Declaration, "PUT", project, query=query, **body)

    async def remove(self, project: str) -> Accepted:
        """Take a project's spec back: nothing is built, trained or served for the project any more."""
        return await self._send(Accepted, "DELETE", project)
