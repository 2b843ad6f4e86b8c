"""Reads the declared projects, and the published documents, from the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing
from difflib import get_close_matches
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import DOCUMENT_PUBLISHED, PROJECT_DECLARED

from tunewheel_cli.reading import decode, read_latest, read_records


class UnknownProject(TunewheelError):
    """The project was never declared."""


class UnknownDocument(TunewheelError):
    """The project never had a document of this id."""


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


async def require_documents(options: Mapping[str, Any], project: str, names: Collection[str]) -> None:
    """Read published documents until each of ``names`` was found.

    Raises:
        UnknownDocument: the project never had one of them; the message names the closest ids.
    """
    missing, others = set(names), set[str]()
    async with aclosing(read_records(options, [DOCUMENT_PUBLISHED.name])) as records:
        async for record in records:
            if not missing:
                return
            if (event := decode(record)) is not None and event.project == project:
                missing.discard(event.data.document_id)
                others.add(event.data.document_id)
    if missing:
        name = min(missing)
        close = get_close_matches(name, others, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "ids are paths below what was published."
        raise UnknownDocument(f"document: {project} never had {name!r}; {hint} Nothing was withdrawn")
