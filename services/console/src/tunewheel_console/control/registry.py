"""Hands questions about lineage, cards and comparisons on to the registry, as the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Query, Request, Response
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.control.models import model_of
from tunewheel_console.control.neighbours import Neighbour, handed_on
from tunewheel_console.control.resolving import project_of
from tunewheel_console.state import ConsoleState

MODELS = "/v1/projects/{project}/models/{model_id}"


async def ask(registry: Neighbour, request: Request, *steps: str, **query: str) -> Response:
    """Return the registry's answer at ``/v1/projects/<steps…>``.

    Raises:
        Refused: 404, a step is no name; or as ``Neighbour.send``.
        TransientError: the registry does not answer.
    """
    if {".", ".."} & {*steps}:  # httpx would normalise the path, and another route would answer
        raise Refused(HTTPStatus.NOT_FOUND, "name", "'.' and '..' name nothing")
    path = "/v1/projects/" + "/".join(quote(step, safe="") for step in steps)
    return handed_on(await registry.send(request, "GET", path, params=query))


def add_registry(web: FastAPI, state: ConsoleState, registry: Neighbour) -> None:
    """Add the routes that the registry answers."""

    @web.get(MODELS + "/card", response_class=Response)
    @needs(Role.VIEWER)
    async def show_card(request: Request, project: str, model_id: str) -> Response:
        """The model's card in the Hugging Face hub's format: Markdown with metadata in YAML."""
        return await ask(registry, request, project, "models", name_of(project, model_id), "card")

    @web.get(MODELS + "/comparison/{other}", response_class=Response)
    @needs(Role.VIEWER)
    async def compare_models(request: Request, project: str, model_id: str, other: str) -> Response:
        """What changed from ``model_id`` to ``other``, as the registry tells it."""
        one, another = name_of(project, model_id), name_of(project, other)
        return await ask(registry, request, project, "models", one, "comparison", another)

    @web.get("/v1/projects/{project}/lineage/{name:path}", response_class=Response)
    @needs(Role.VIEWER)
    async def show_lineage(
        request: Request, project: str, name: str, records: Annotated[int, Query(ge=0, le=10_000)] = 100
    ) -> Response:
        """All ancestors and descendants of ``name``, as the registry tells them."""
        return await ask(registry, request, project, "lineage", name, records=str(records))

    def name_of(project: str, asked: str) -> str:
        return model_of(project_of(state, project), asked).data.model_id
