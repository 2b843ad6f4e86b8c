"""Finds what a path names: an id, a unique beginning of an id, or ``latest``."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from tunewheel_runtime.refusals import Refused

from tunewheel_console.project import Project
from tunewheel_console.run import Run
from tunewheel_console.state import ConsoleState

LATEST = "latest"
SHORTEST = 6
"""The fewest characters of an id's beginning that name it."""
MOST_NAMED = 5
"""How many of several matching ids a refusal names."""


def resolve(
    asked: str, newest_first: Iterable[str], *, field: str, project: str, noun: str | None = None
) -> str:
    """Return the id that ``asked`` names. ``field`` is the path's name of it, such as ``run_id``; ``noun``
    is what it names, if that does not follow from ``field``.

    Raises:
        Refused: 404 where no id matches, 409 where several do.
    """
    ids = list(newest_first)
    if asked in ids:
        return asked
    if asked == LATEST and ids:
        return ids[0]
    noun = noun or field.removesuffix("_id")
    where = f"see GET /v1/projects/{project}/{noun}s"
    matching = [one for one in ids if one.startswith(asked)]
    if len(asked) < SHORTEST and matching:
        reason = f"{asked!r} is too short a beginning of an id; give at least {SHORTEST} characters"
        raise Refused(HTTPStatus.NOT_FOUND, field, reason)
    if not matching:
        raise Refused(HTTPStatus.NOT_FOUND, field, f"{project} has no {noun} {asked!r}; {where}")
    if len(matching) > 1:
        more = f" and {len(matching) - MOST_NAMED} more" if len(matching) > MOST_NAMED else ""
        named = f"{', '.join(matching[:MOST_NAMED])}{more}"
        raise Refused(HTTPStatus.CONFLICT, field, f"{asked!r} is the beginning of {named}; give more of it")
    return matching[0]


def project_of(state: ConsoleState, name: str) -> Project:
    """Return the project. The guard has asked for a role in it before, so only callers who may read it learn
    that there is none.

    Raises:
        Refused: 404.
    """
    project = state.projects.get(name)
    if project is None:
        reason = f"{name!r} is not declared; see GET /v1/projects"
        raise Refused(HTTPStatus.NOT_FOUND, "project", reason)
    return project


def run_of(project: Project, asked: str) -> Run:
    """Return the run. Raises ``Refused`` as ``resolve``."""
    if asked in project.runs:
        return project.runs[asked]
    return project.runs[resolve(asked, newest_runs(project), field="run_id", project=project.name)]


def newest_runs(project: Project) -> list[str]:
    """Return the ids of the runs, newest first."""
    runs = sorted(project.runs.values(), key=lambda run: (run.created_at, run.run_id), reverse=True)
    return [run.run_id for run in runs]
