"""Draws the page of the playground with answers to a prompt, which no address should hold."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.pages.asking import NotAnswered, ask
from tunewheel_console.pages.drawing import draw

PLAYGROUND = "/projects/{project}/playground"


def add_playground_form(api: FastAPI, headers: dict[str, str]) -> None:
    """Add the route, which takes the API's request for answers. Fields that nobody filled in are left out.
    ``headers``: of every page."""

    @api.post(PLAYGROUND, include_in_schema=False, response_class=HTMLResponse)
    @needs(Role.APPLICATION)
    async def answer(request: Request, body: dict[str, Any]) -> HTMLResponse:
        path, found, lacks = f"/v1{PLAYGROUND}".format(**request.path_params), dict[str, Any](), {}
        body, status = {name: value for name, value in body.items() if value != ""}, HTTPStatus.OK
        try:
            found["told"] = await ask(api, request, path, body=body)
        except NotAnswered as error:
            lacks, status = {"answers": str(error)}, HTTPStatus(error.status)
        of_project = path.removesuffix("/playground")
        for name, asked in (("it", of_project), ("models", f"{of_project}/models")):
            with suppress(NotAnswered):  # who may ask models need not be a viewer
                found[name] = await ask(api, request, asked)
        page = draw("playground", request, live=False, lacks=lacks, asked=body, **found)
        return HTMLResponse(page, status, headers)
