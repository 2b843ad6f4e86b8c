"""Reads the declared projects from the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import PROJECT_DECLARED

from tunewheel_cli.reading import read_latest


class UnknownProject(TunewheelError):
    """The project was never declared."""


async def declared_projects(options: Mapping[str, Any]) -> dict[str, ProjectDeclared]:
    """Return the newest declaration of every project."""
    return {key: event.data for key, event in (await read_latest(options, PROJECT_DECLARED)).items()}


async def require_project(options: Mapping[str, Any], project: str) -> ProjectDeclared:
    """Return the declaration of ``project``.

    Raises:
        UnknownProject: there is none; the message lists the declared projects.
    """
    declared = await declared_projects(options)
    if project not in declared:
        others = f" (declared: {', '.join(sorted(declared))})" if declared else ""
        raise UnknownProject(
            f"project: {project!r} is not declared{others}; run `tunewheel declare project.yaml` first"
        )
    return declared[project]
