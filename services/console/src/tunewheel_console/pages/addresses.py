"""The addresses of the console's pages, and the routes that answer them.

A page is a template and the questions whose answers it shows. The control API answers them as it answers a
program with the caller's key, so a page shows nothing that its reader may not read, and an address of nothing
is status 404.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from tunewheel_runtime.identity.guard import asks_nobody, needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.pages.asking import NotAnswered, ask
from tunewheel_console.pages.drawing import POLICY, draw

HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store", "referrer-policy": "same-origin"}
PROJECT = "/v1/projects/{project}"
FEW = "?limit=5"
"""How many of a list a page shows that is about something else."""


@dataclass(frozen=True, slots=True)
class Address:
    """A page. ``asks`` are paths of the API by the name of the answer in the template. The first one takes
    the query of the page, and its refusal is the page's. Without an answer to another one the page lacks a
    part, and says why: its name is in ``lacks``."""

    path: str
    template: str
    asks: Mapping[str, str]
    live: bool = True
    """Whether an event of the project draws the page anew."""
    query: frozenset[str] = field(default=frozenset({"after", "limit"}))


def _list(noun: str, **asks: str) -> Address:
    return Address(f"/projects/{{project}}/{noun}", noun, {"found": f"{PROJECT}/{noun}"} | asks)


def _one(noun: str, name: str, **asks: str) -> Address:
    path = f"/{noun}/{{{name}}}"
    template = f"{noun.removesuffix('s')}"
    return Address(f"/projects/{{project}}{path}", template, {"it": PROJECT + path} | asks)


ADDRESSES = (
    Address("/projects", "projects", {"found": "/v1/projects"}),
    Address(
        "/projects/{project}", "project",
        {"it": PROJECT, "turns": f"{PROJECT}/turns{FEW}", "runs": f"{PROJECT}/runs{FEW}",
         "datasets": f"{PROJECT}/datasets{FEW}", "models": f"{PROJECT}/models{FEW}"},
    ),
    _list("datasets"),
    _one("datasets", "dataset_id"),
    Address(
        "/projects/{project}/datasets/{dataset_id}/rows", "rows",
        {"found": f"{PROJECT}/datasets/{{dataset_id}}/rows", "version": f"{PROJECT}/datasets/{{dataset_id}}"},
        live=False, query=frozenset({"after", "limit", "split"}),
    ),
    Address(
        "/projects/{project}/datasets/{dataset_id}/diff/{other}", "diff",
        {"it": f"{PROJECT}/datasets/{{dataset_id}}/diff/{{other}}"}, live=False,
    ),
    _list("runs"),
    _one("runs", "run_id"),
    _list("evaluations"),
    _one("evaluations", "evaluation_id"),
    _list("models"),
    _one("models", "model_id", rollouts=f"{PROJECT}/rollouts?limit=1000"),
    _list("turns"),
    _one("turns", "turn_id"),
    _list("alarms"),
    _one("alarms", "alarm_id"),
    _list("detectors"),
    _list("commands"),
    _list("quarantine"),
    Address(
        "/projects/{project}/lineage/{name}", "lineage", {"it": f"{PROJECT}/lineage/{{name}}"}, live=False,
    ),
    Address("/dead-letters", "dead_letters", {"found": "/v1/dead-letters"}),
    Address("/services", "services", {"it": "/v1/services"}),
    Address("/audit", "audit", {"found": "/v1/audit"}),
    Address("/keys", "keys", {"it": "/v1/keys"}),
)  # fmt: skip


def add_pages(api: FastAPI) -> None:
    """Add a page for each address, their assets, and an answer for addresses of nothing."""
    for one in ADDRESSES:
        _add(api, one)
    assets: Any = asks_nobody(StaticFiles(directory=Path(__file__).with_name("static")))
    api.router.routes.append(Mount("/static", assets, name="static"))

    @api.get("/projects/{rest:path}", include_in_schema=False, response_class=HTMLResponse)
    @needs(*Role, project="any")
    async def nothing(request: Request) -> HTMLResponse:
        return _refused(request, NotAnswered(HTTPStatus.NOT_FOUND, "there is no page at this address"))


def _add(api: FastAPI, address: Address) -> None:
    @api.get(address.path, include_in_schema=False, response_class=HTMLResponse, name=address.template)
    @needs(*Role, project="any")
    async def show(request: Request) -> HTMLResponse:
        query = {name: value for name, value in request.query_params.items() if name in address.query}
        found, lacks = dict[str, Any](), dict[str, str]()
        for number, (name, path) in enumerate(address.asks.items()):
            asked, _, own = path.format(**request.path_params).partition("?")
            options = dict(part.split("=") for part in own.split("&") if part)
            try:
                found[name] = await ask(api, request, asked, options if number else options | query)
            except NotAnswered as error:
                if number == 0:
                    return _refused(request, error)
                lacks[name] = str(error)
        page = draw(address.template, request, live=address.live, lacks=lacks, **found)
        return HTMLResponse(page, headers=HEADERS)


def _refused(request: Request, error: NotAnswered) -> HTMLResponse:
    page = draw("refused", request, live=False, status=error.status, reason=str(error))
    return HTMLResponse(page, error.status, HEADERS)
