"""Answers the form of the playground. It is a plain form, so that it needs no script."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.pages.asking import NotAnswered, ask
from tunewheel_console.pages.drawing import draw

PLAYGROUND = "/projects/{project}/playground"


def add_playground_form(api: FastAPI, headers: dict[str, str]) -> None:
    """Add the route. ``headers``: of every page."""

    @api.post(PLAYGROUND, include_in_schema=False, response_class=HTMLResponse)
    @needs(Role.APPLICATION)
    async def answer(request: Request) -> HTMLResponse:
        path, found, lacks = f"/v1{PLAYGROUND}".format(**request.path_params), dict[str, Any](), {}
        body = _order(await request.body())
        status = HTTPStatus.OK
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


def _order(form: bytes) -> dict[str, Any]:
    """Return the body of the API's request for a form. Fields that nobody filled in are left out."""
    fields = parse_qs(form.decode("utf-8", "replace"))
    names = ("prompt", "candidate", "passages")
    told: dict[str, Any] = {name: fields[name][-1] for name in names if name in fields}
    told |= {"models": fields["models"]} if "models" in fields else {}
    if (most := fields.get("max_tokens", [""])[-1]).strip():
        told["max_tokens"] = most
    return told | {"prompt": told.get("prompt", "").replace("\r\n", "\n")}
