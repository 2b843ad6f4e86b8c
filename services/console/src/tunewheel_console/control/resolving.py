"""Finds what a path names: an id, a unique beginning of one, or ``latest``; and names commands and people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from tunewheel_contracts.api.commands import Order
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.fields import shared
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.refusals import Refused

from tunewheel_console.project import Project
from tunewheel_console.run import Run
from tunewheel_console.state import ConsoleState

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
LATEST = "latest"
SHORTEST = 6
"""The fewest characters of an id's beginning that name it."""
MOST_NAMED = 5
"""How many of several matching ids a refusal names."""


def resolve(
    asked: str, newest_first: Iterable[str], *, field: str, project: str, noun: str | None = None
) -> str:
    """Return the id that ``asked`` names. ``field`` is the path's name of it, such as ``run_id``; ``noun`` is
    what it names, if that does not follow from ``field``. Raises Refused: 404 where no id matches, 409 where
    several do."""
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
    that there is none. Raises Refused: 404."""
    project = state.projects.get(name)
    if project is None:
        reason = f"{name!r} is not declared; see GET /v1/projects"
        raise Refused(HTTPStatus.NOT_FOUND, "project", reason)
    return project


async def viewed(request: Request, project: str) -> Project:
    return project_of(request.app.state.console, project)


View = Annotated[Project, Depends(viewed)]
"""The project that a path names. A route gets it as an argument; 404: there is none."""


def find(
    asked: str,
    items: Mapping[str, T],
    place: Callable[[T], Any],
    *,
    field: str,
    project: str,
    noun: str | None = None,
) -> T:
    """Return the one of ``items`` that ``asked`` names; ``latest`` has the greatest ``place``. Raises as
    ``resolve``."""
    if asked in items:
        return items[asked]
    newest = sorted(items, key=lambda name: place(items[name]), reverse=True)
    return items[resolve(asked, newest, field=field, project=project, noun=noun)]


def run_of(project: Project, asked: str) -> Run:
    """Return the run. Raises as ``resolve``."""
    return find(
        asked, project.runs, lambda run: (run.created_at, run.run_id), field="run_id", project=project.name
    )


def dataset_of(project: Project, asked: str, *, field: str = "dataset_id") -> Envelope[DatasetVersioned]:
    """Return the event of the version. Raises as ``resolve``."""
    return find(
        asked,
        project.datasets,
        lambda one: (one.time, one.data.dataset_id),
        field=field,
        project=project.name,
        noun="dataset",
    )


def told(kind: type[M], *of: object, **more: Any) -> M:
    """Return a model with the fields that ``of`` have under the same names, and ``more``."""
    return kind(**shared(kind, *of) | more)


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=256,
        description="Names the command, as `request` does.",
    ),
]


def named(order: Order, key: str | None) -> str | None:
    """Return the caller's name of a command, from its body or from ``Idempotency-Key``; None: it has none.
    Raises Refused: both name it, and differently."""
    if order.request is not None and key not in (None, order.request):
        reason = "is not the Idempotency-Key; send one of the two"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "request", reason)
    return order.request or key


def reviewer_of(caller: Caller, name: str | None) -> str:
    """Return the reviewer's name: the caller's unique name, or ``name`` if identity is open. Raises Refused:
    no name is given, or ``name`` is not the caller's."""
    principal = caller.principal
    if principal is None:
        if not name:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "reviewer",
                "is missing: identity is open, so say who you are",
            )
        return name
    own = principal.name if principal.issuer is None else f"{principal.name} ({principal.issuer})"
    if name not in (None, own):
        reason = f"is {name!r}, but the key says {own!r}; leave it out"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "reviewer", reason)
    return own
