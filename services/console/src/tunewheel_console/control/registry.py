"""Hands questions about lineage, cards and comparisons on to the registry, as the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

import httpx
from fastapi import FastAPI, Query, Request, Response
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.tls import trust

from tunewheel_console.control.models import model_of
from tunewheel_console.control.resolving import project_of
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState

SECONDS = 30.0
"""The longest wait for the registry."""
MODELS = "/v1/projects/{project}/models/{model_id}"
HANDED_ON = ("content-type", "www-authenticate", "retry-after")


def registry_client(settings: Settings) -> httpx.AsyncClient | None:
    """Return a client of the registry's API; None: nobody named its address.

    Raises:
        InvalidTls: the file of authorities cannot be used.
    """
    if settings.registry_url is None:
        return None
    context = trust(settings.registry_cafile, setting="TUNEWHEEL_REGISTRY_CAFILE")
    return httpx.AsyncClient(base_url=settings.registry_url, verify=context, timeout=SECONDS)


class Registry:
    """The registry's API."""

    def __init__(self, client: httpx.AsyncClient | None) -> None:
        """``client`` has the registry's address; None: nobody named one."""
        self._client = client

    async def ask(self, request: Request, *steps: str, **query: str) -> Response:
        """Return the registry's answer at ``/v1/projects/<steps…>``. The registry sees the caller's own
        credentials.

        Raises:
            Refused: 404, a step is no name; 401, a browser's session cannot be handed on; 503, nobody named
                the registry's address.
            TransientError: the registry does not answer.
        """
        if self._client is None:
            reason = "the console knows no registry; set TUNEWHEEL_REGISTRY_URL"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, None, reason)
        authorization = request.headers.get("authorization")
        if authorization is None and "cookie" in request.headers:
            reason = "send a key or a token as Authorization: the registry does not know this session"
            raise Refused(HTTPStatus.UNAUTHORIZED, None, reason)
        if {".", ".."} & {*steps}:  # httpx would normalise the path, and another route would answer
            raise Refused(HTTPStatus.NOT_FOUND, "name", "'.' and '..' name nothing")
        path = "/v1/projects/" + "/".join(quote(step, safe="") for step in steps)
        headers = {} if authorization is None else {"authorization": authorization}
        try:
            answer = await self._client.get(path, params=query, headers=headers)
        except httpx.HTTPError as error:
            raise TransientError(f"the registry does not answer ({type(error).__name__})") from error
        told = {name: answer.headers[name] for name in HANDED_ON if name in answer.headers}
        return Response(answer.content, answer.status_code, told)


def add_registry(web: FastAPI, state: ConsoleState, registry: Registry) -> None:
    """Add the routes that the registry answers."""

    @web.get(MODELS + "/card", response_class=Response)
    @needs(Role.VIEWER)
    async def show_card(request: Request, project: str, model_id: str) -> Response:
        """The model's card in the Hugging Face hub's format: Markdown with metadata in YAML."""
        return await registry.ask(request, project, "models", name_of(project, model_id), "card")

    @web.get(MODELS + "/comparison/{other}", response_class=Response)
    @needs(Role.VIEWER)
    async def compare_models(request: Request, project: str, model_id: str, other: str) -> Response:
        """What changed from ``model_id`` to ``other``, as the registry tells it."""
        one, another = name_of(project, model_id), name_of(project, other)
        return await registry.ask(request, project, "models", one, "comparison", another)

    @web.get("/v1/projects/{project}/lineage/{name:path}", response_class=Response)
    @needs(Role.VIEWER)
    async def show_lineage(
        request: Request, project: str, name: str, records: Annotated[int, Query(ge=0, le=10_000)] = 100
    ) -> Response:
        """All ancestors and descendants of ``name``, as the registry tells them."""
        return await registry.ask(request, project, "lineage", name, records=str(records))

    def name_of(project: str, asked: str) -> str:
        return model_of(project_of(state, project), asked).data.model_id
