"""What people do to runs on the page, for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainAction
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import NotAuthenticated, Role

from tunewheel_console.actions import Actions
from tunewheel_console.logins import LoginLinks
from tunewheel_console.state import ConsoleState


def add_routes(api: FastAPI, state: ConsoleState, actions: Actions) -> None:
    """Add the routes.

    ``POST /v1/projects/{project}/runs/{run_id}/{action}``, ``action`` being pause, resume or cancel: 202 once
    the command is on the log, 404 for a run that no event told of, 409 for one that has ended, 503 while the
    broker is away.
    """

    @api.post("/v1/projects/{project}/runs/{run_id}/{action}", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def control(request: Request, project: str, run_id: str, action: TrainAction) -> dict[str, str]:
        known = state.projects.get(project)
        run = known.runs.get(run_id) if known else None
        if run is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"run_id: {project} has no run {run_id}; correct it")
        if run.ended:
            raise HTTPException(HTTPStatus.CONFLICT, f"action: {run_id} has ended ({run.ended})")
        try:
            await actions.control(project, run_id, action, principal=caller_of(request).principal)
        except TransientError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        return {"project": project, "run_id": run_id, "action": action.value}


def add_login_links(api: FastAPI, links: LoginLinks, access: Access) -> None:
    """Add ``POST /v1/login-links``: 201 with ``path``, below which this console logs a browser in once, and
    with ``expires_at``. 409 where identity is open, and nobody logs in."""

    @api.post("/v1/login-links", status_code=HTTPStatus.CREATED)
    @needs(Role.VIEWER)
    async def make_link(request: Request) -> dict[str, str]:
        if access.is_open:
            raise HTTPException(HTTPStatus.CONFLICT, "identity is open: the page asks nobody to log in")
        try:
            credential = await access.credential(request.headers.get("authorization"))
        except NotAuthenticated as error:  # a session's cookie makes no further session
            raise HTTPException(HTTPStatus.UNAUTHORIZED, str(error)) from error
        secret, ends = links.make(credential)
        return {"path": f"/login?link={secret}", "expires_at": datetime.fromtimestamp(ends, UTC).isoformat()}
