"""The HTTP API of runs and models, for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from tunewheel_contracts.events.training import TrainAction
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import ALONE, Actions, ModelAction
from tunewheel_console.logins import LoginLinks
from tunewheel_console.refusals import Refused
from tunewheel_console.state import ConsoleState

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""The content security policy of a page with texts of models and customers: no script runs, and the page has
no origin."""


class ModelOrder(BaseModel):
    """``generation``: of the state on which the order is based. None: the newest one that the console
    knows."""

    reason: Annotated[str, Field(min_length=1, max_length=10_000)]
    force: bool = False
    generation: Annotated[int, Field(ge=0)] | None = None


def add_routes(api: FastAPI, state: ConsoleState, actions: Actions) -> None:
    """Add the routes.

    ``POST /v1/projects/{project}/runs/{run_id}/{action}``, where ``action`` is pause, resume or cancel.
    Status 202: the command is on the log. 404: the run is unknown. 409: it has ended. 503: the broker is
    away.
    """

    @api.post("/v1/projects/{project}/runs/{run_id}/{action}", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def control_run(request: Request, project: str, run_id: str, action: TrainAction) -> dict[str, str]:
        view = state.projects.get(project)
        run = view.runs.get(run_id) if view else None
        if run is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"{project} has no run {run_id}; correct it")
        if run.ended:
            raise Refused(HTTPStatus.CONFLICT, "action", f"{run_id} has ended ({run.ended})")
        await actions.control(project, run_id, action, principal=caller_of(request).principal)
        return {"project": project, "run_id": run_id, "action": action.value}


def add_model_commands(api: FastAPI, state: ConsoleState, actions: Actions) -> None:
    """Add ``POST /v1/projects/{project}/models/{model_id}/{action}``.

    ``model_id`` is an id, ``champion`` or ``challenger``. For the action ``stop`` it is ``champion`` or
    ``base``. Status 202: the command is on the log. 404: the model is unknown. 503: the broker is away. The
    registry answers by an event whose cause is ``command_id``, or by ``command.refused``, which names it.
    """

    @api.post("/v1/projects/{project}/models/{model_id}/{action}", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def command_model(
        request: Request, project: str, model_id: str, action: ModelAction, order: ModelOrder
    ) -> dict[str, str]:
        view = state.projects.get(project)
        desired = view.desired if view else None
        stops = action is ModelAction.STOP
        alone = ALONE if stops else ()
        meant = desired.desired.model_id(model_id) if desired and model_id not in alone else model_id
        if view is None or meant is None or meant not in {*view.models, *view.stages, *alone}:
            raise Refused(HTTPStatus.NOT_FOUND, "model_id", f"{project} has no model {model_id}; correct it")
        seen = order.generation
        if desired and seen is None and not stops:
            seen = desired.generation
        command_id = await actions.command(
            project, meant, action.value, reason=order.reason, force=order.force, generation=seen,
            principal=caller_of(request).principal,
        )  # fmt: skip
        return {"project": project, "model_id": meant, "action": action.value, "command_id": command_id}


def add_scorecard_page(api: FastAPI, state: ConsoleState, store: ObjectStore) -> None:
    """Add ``GET /v1/projects/{project}/runs/{run_id}/scorecard``, the page of a run's last verdict.

    Status 404: there is none. 409: a review of the project's answers is open. 503: the store is away.
    """

    @api.get("/v1/projects/{project}/runs/{run_id}/scorecard")
    @needs(Role.VIEWER)
    async def show_scorecard(project: str, run_id: str) -> HTMLResponse:
        view = state.projects.get(project)
        run = view.runs.get(run_id) if view else None
        if view is None or run is None or run.verdict is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"{project} has no verdict on {run_id}")
        # A review of any run counts, because all versions are compared with the same models on the same
        # prompts.
        waiting = [one.subject for one in view.reviews.waiting if one.comparisons is None]
        if waiting:
            raise Refused(
                HTTPStatus.CONFLICT,
                "run_id",
                f"a review of {', '.join(waiting)} is open, and the page says whose answers are "
                "whose; it can be read once the review has ended",
            )
        path = PurePosixPath(run.verdict.scorecard.path).with_suffix(".html")
        page = await store.read(str(path))
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"the scorecard of {run_id} has no page")
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


def add_login_links(api: FastAPI, links: LoginLinks, access: Access) -> None:
    """Add ``POST /v1/login-links``. Status 201 with ``path``, a link that logs a browser in once, and
    ``expires_at``. 409: identity is open, so nobody logs in."""

    @api.post("/v1/login-links", status_code=HTTPStatus.CREATED)
    @needs(Role.VIEWER)
    async def make_login_link(request: Request) -> dict[str, str]:
        if access.is_open:
            raise Refused(HTTPStatus.CONFLICT, None, "identity is open: the page asks nobody to log in")
        # a session's cookie does not suffice for another session
        credential = await access.credential(request.headers.get("authorization"))
        secret, ends = links.make(credential)
        return {"path": f"/login?link={secret}", "expires_at": datetime.fromtimestamp(ends, UTC).isoformat()}
