"""The addresses of the console's pages, and the routes that answer them.

A page is a template and the questions whose answers it shows. The control API answers them as it answers a
program with the caller's key, so a page shows nothing that its reader may not read, and an address of nothing
is status 404.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import parse_qsl, quote

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.requests import Request
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from tunewheel_runtime.identity.guard import asks_nobody, needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.logins import root_of
from tunewheel_console.pages.asking import PLAYGROUND, NotAnswered, add_playground_form, ask
from tunewheel_console.pages.drawing import POLICY, draw, query_of

READ = ["GET", "HEAD"]
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store", "referrer-policy": "same-origin"}
PROJECT = "/v1/projects/{project}"
DATASET = f"{PROJECT}/datasets/{{dataset_id}}"
EVALUATION = f"{PROJECT}/evaluations/{{evaluation_id}}"
FEW = "?limit=5"
"""How many of a list a page shows that is about something else."""
LONGEST_QUESTION = 4_000
"""How many characters of a question the search for passages takes."""
PASSED = frozenset({
    "after", "limit", "split", "reviewer", "text", "label", "source", "difference", "metric", "against",
    "answered", "unlabelled", "stage", "reason", "role", "compare", "q", "format", "latency",
    "model", "client", "since", "question",
})  # fmt: skip
"""The parts of a page's query that are passed on to the API. A field of a form that is empty is not."""
MOST_ROWS = 50
"""The most items of a list on a page: a browser lays out some thousand elements at once."""
Question = str | Callable[[Mapping[str, Any], Mapping[str, str]], str | None]
"""A path of the API, with names of the page's path and of answers so far, such as ``{it[run_id]}``; or what
makes one of the answers and the page's query. What is None or missing is not asked for."""


class _Filler(Formatter):
    """Fills names in, and raises LookupError or TypeError for one that is not known."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        found = super().get_field(field_name, args, kwargs)
        if found[0] is None:
            raise LookupError(field_name)
        return found


@dataclass(frozen=True, slots=True)
class Address:
    """A page. ``asks`` are questions by the name of the answer in the template. A refusal of the first one is
    the page's. Without an answer to another one the page lacks a part, and says why."""

    path: str
    template: str
    asks: Mapping[str, Question]
    most: int = MOST_ROWS
    """The most items of a list on the page."""
    live: bool = True
    """Whether an event of the project draws the page anew."""
    role: Role = Role.VIEWER
    everywhere: bool = False
    """Whether the role is needed in all projects."""
    page: str = ""
    """The name of the page, if the template draws several."""
    title: str = ""
    empty: str = ""
    """What a list without items says."""


def _list(noun: str, role: Role = Role.VIEWER, most: int = MOST_ROWS) -> Address:
    path = f"/projects/{{project}}/{noun}"
    return Address(path, noun, {"found": f"{PROJECT}/{noun}"}, role=role, most=most)


def _table(noun: str, title: str, empty: str) -> Address:
    """Return a list that the macro ``noun`` draws."""
    path = f"/projects/{{project}}/{noun}"
    return Address(path, "list", {"found": f"{PROJECT}/{noun}"}, page=noun, title=title, empty=empty)


def _one(noun: str, name: str, **asks: Question) -> Address:
    path = f"/{noun}/{{{name}}}"
    return Address(f"/projects/{{project}}{path}", noun.removesuffix("s"), {"it": PROJECT + path} | asks)


def _labels(found: Mapping[str, Any], _: Mapping[str, str]) -> str | None:
    return f"{EVALUATION}/labels" if found["it"].get("scorecard") else None


def _context(found: Mapping[str, Any], query: Mapping[str, str]) -> str | None:
    """Return what is shown beside a question; not when a page is drawn anew for its counts (``part``)."""
    is_shown = "item" in found and "part" not in query
    return f"{PROJECT}/labels/{{request_id}}/items/{found['item']['number']}/context" if is_shown else None


def _passages(found: Mapping[str, Any], _: Mapping[str, str]) -> str | None:
    """Return the search for passages, if the project has documents."""
    question = found.get("context", {}).get("search")
    return f"{PROJECT}/passages?question={quote(question[:LONGEST_QUESTION], safe='')}" if question else None


def _queue(noun: str, name: str, **beside: Question) -> Address:
    """Return the page on which people answer one item after the other, and what is shown beside it."""
    path = f"{PROJECT}/{noun}/{{{name}}}"

    def item(found: Mapping[str, Any], query: Mapping[str, str]) -> str | None:
        number = query.get("item") or found["it"].get("next")
        return f"{path}/items/{quote(str(number), safe='')}" if number and number != "end" else None

    address, template = f"/projects/{{project}}/{noun}/{{{name}}}", f"{noun.removesuffix('s')}_item"
    return Address(address, template, {"it": path, "item": item} | beside, role=Role.REVIEWER)


ADDRESSES = (
    Address("/my-work", "my_work", {"found": "/v1/projects?waiting=true&limit=200"}),
    Address("/projects", "projects", {"found": "/v1/projects"}),
    Address(
        "/projects/{project}", "project",
        {"it": PROJECT, "turns": f"{PROJECT}/turns{FEW}", "runs": f"{PROJECT}/runs{FEW}",
         "datasets": f"{PROJECT}/datasets{FEW}", "models": f"{PROJECT}/models{FEW}"},
    ),
    _table("datasets", "Dataset versions", "No version was built yet."),
    _one("datasets", "dataset_id", versions=f"{PROJECT}/datasets?limit=50"),
    Address(
        "/projects/{project}/datasets/{dataset_id}/diff", "diff",
        {"it": lambda _, query: f"{DATASET}/diff/{quote(query.get('other', ''), safe='')}"}, live=False,
    ),
    Address(
        "/projects/{project}/datasets/{dataset_id}/rows/{row_id}", "row",
        {"it": f"{DATASET}/rows/{{row_id}}", "tokens": f"{DATASET}/rows/{{row_id}}/tokens"}, live=False,
    ),
    Address(
        "/projects/{project}/datasets/{dataset_id}/dropped", "dropped",
        {"found": f"{DATASET}/dropped"}, live=False,
    ),
    Address(
        "/projects/{project}/datasets/{dataset_id}/rows", "rows",
        {"found": f"{DATASET}/rows", "version": DATASET}, live=False, most=25,
    ),
    Address(
        "/projects/{project}/runs", "runs",
        {"found": f"{PROJECT}/runs",
         "comparison": lambda _, query: f"{PROJECT}/runs/comparison" if query.get("compare") else None,
         "sweeps": f"{PROJECT}/sweeps{FEW}"},
    ),
    _one("runs", "run_id"),
    _one("sweeps", "sweep_id"),
    _table("evaluations", "Evaluations", "Nothing was evaluated yet. Each completed run is evaluated by "
        "the criteria of the project's spec."),
    Address(
        "/projects/{project}/evaluations/{evaluation_id}", "evaluation",
        {"it": EVALUATION, "labels": _labels},
    ),
    Address(
        "/projects/{project}/evaluations/{evaluation_id}/rows", "evaluation_rows",
        {"it": EVALUATION, "found": f"{EVALUATION}/rows", "labels": _labels}, live=False, most=10,
    ),
    _table("models", "Models", "No model is registered yet."),
    _one("models", "model_id", rollouts=f"{PROJECT}/rollouts?model_id={{model_id}}", serving=PROJECT),
    _table("turns", "Turns", "No turn has begun yet: records have to arrive, or tunewheel dataset build "
        "asks for one."),
    _one(
        "turns", "turn_id",
        alarm=f"{PROJECT}/alarms/{{it[alarm_ids][0]}}",
        labels=f"{PROJECT}/labels/{{alarm[labels][0]}}",
        dataset=f"{PROJECT}/datasets/{{it[dataset_id]}}",
        diff=f"{PROJECT}/datasets/{{dataset[previous]}}/diff/{{dataset[dataset_id]}}",
        run=f"{PROJECT}/runs/{{it[run_id]}}",
        evaluation=f"{PROJECT}/evaluations/{{run[evaluations][0]}}",
        rollouts=f"{PROJECT}/rollouts?model_id={{it[model_id]}}",
    ),
    _table("alarms", "Alarms", "No alarm was raised yet. The detectors say how near each of them is to "
        "one."),
    _one("alarms", "alarm_id"),
    _list("detectors"),
    _list("quarantine", most=20),
    Address(
        "/projects/{project}/completions", "completions",
        {"found": f"{PROJECT}/completions", "models": f"{PROJECT}/models?limit=1000"},
        live=False, role=Role.REVIEWER,
    ),
    Address(
        "/projects/{project}/completions/{completion_id}", "completion",
        {"it": f"{PROJECT}/completions/{{completion_id}}"}, role=Role.REVIEWER,
    ),
    Address(
        "/projects/{project}/documents", "documents",
        {"found": f"{PROJECT}/documents", "it": PROJECT,
         "search": lambda _, query: f"{PROJECT}/passages" if query.get("question", "").strip() else None},
        live=False,
    ),
    Address(
        "/projects/{project}/documents/{name:path}", "document",
        {"it": f"{PROJECT}/documents/{{name}}",
         "lineage": f"{PROJECT}/lineage/{{it[record_id]}}"}, live=False,
    ),
    Address(PLAYGROUND, "playground", {"it": PROJECT, "models": f"{PROJECT}/models?limit=50"}, live=False),
    _list("labels", Role.REVIEWER),
    _queue("labels", "request_id", context=_context, passages=_passages),
    _list("reviews", Role.REVIEWER),
    _queue("reviews", "review_id"),
    _table("commands", "Commands of people", "Nobody gave a command yet. The buttons of these pages and "
        "the command line give them."),
    _list("erasures", Role.OPERATOR),
    Address(
        "/projects/{project}/lineage/{name:path}", "lineage", {"it": f"{PROJECT}/lineage/{{name}}"},
        live=False,
    ),
    Address("/dead-letters", "dead_letters", {"found": "/v1/dead-letters"}, everywhere=True),
    Address(
        "/dead-letters/{letter_id}", "dead_letter", {"it": "/v1/dead-letters/{letter_id}"},
        role=Role.OPERATOR, everywhere=True,
    ),
    Address("/services", "services", {"it": "/v1/services"}),
    Address("/audit", "audit", {"found": "/v1/audit"}, role=Role.OPERATOR, everywhere=True),
    Address("/keys", "keys", {"it": "/v1/keys"}, role=Role.OPERATOR, everywhere=True),
)  # fmt: skip


class _Assets(StaticFiles):
    """Files that a browser asks for again each time, so that none is older than the page."""

    def file_response(self, *found: Any, **options: Any) -> Response:
        response = super().file_response(*found, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def add_pages(api: FastAPI) -> None:
    """Add a page for each address, their assets, and an answer for addresses of nothing. They are routes of
    Starlette: of a page FastAPI would check nothing, and to look at its endpoint takes FastAPI a millisecond.
    """
    for one in ADDRESSES:
        _add(api, one)
    add_playground_form(api, HEADERS)
    assets: Any = asks_nobody(_Assets(directory=Path(__file__).with_name("static")))
    api.router.routes.append(Mount("/static", assets, name="static"))

    @needs(Role.VIEWER)
    async def first(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{root_of(request)}projects")

    @needs(Role.VIEWER)
    async def nothing(request: Request) -> HTMLResponse:
        return _refused(request, NotAnswered(HTTPStatus.NOT_FOUND, "there is no page at this address"))

    api.add_route("/", first, methods=READ)
    api.add_route("/projects/{rest:path}", nothing, methods=READ)


def _add(api: FastAPI, address: Address) -> None:
    @needs(address.role, everywhere=address.everywhere)
    async def show(request: Request) -> HTMLResponse:
        query = query_of(request)
        passed = {name: value for name, value in query.items() if value and name in PASSED}
        limit = passed.get("limit", str(address.most))
        passed["limit"] = str(min(int(limit), address.most)) if limit.isdecimal() else limit
        found, lacks = dict[str, Any](), dict[str, str]()
        for name, question in address.asks.items():
            path = question if isinstance(question, str) else question(found, query)
            if path is None:
                continue
            asked, _, own = path.partition("?")
            names = {name: quote(value, safe="") for name, value in request.path_params.items()}
            try:
                own = _Filler().vformat(own, (), found | names)
                asked = _Filler().vformat(asked, (), found | request.path_params)
            except (LookupError, TypeError):
                continue
            options = dict(parse_qsl(own)) if own else passed
            try:
                found[name] = await ask(api, request, asked, options)
            except NotAnswered as error:
                if not found:
                    return _refused(request, error)
                if error.status != HTTPStatus.FORBIDDEN:  # what is for others is not missing
                    lacks[name] = str(error)
        named = {"page": address.page or address.template, "title": address.title, "empty": address.empty}
        page = draw(address.template, request, live=address.live, lacks=lacks, **named, **found)
        return HTMLResponse(page, headers=HEADERS)

    api.add_route(address.path, show, methods=READ, name=address.template)


def _refused(request: Request, error: NotAnswered) -> HTMLResponse:
    page = draw("refused", request, live=False, status=error.status, reason=str(error))
    return HTMLResponse(page, error.status, HEADERS)
