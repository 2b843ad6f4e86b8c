"""The HTTP API of scorecards' pages and of login links."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import PurePosixPath

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.evaluations import unblinding
from tunewheel_console.control.resolving import project_of, run_of
from tunewheel_console.logins import LoginLinks
from tunewheel_console.state import ConsoleState

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""The content security policy of a page with texts of models and customers: no script runs, and the page has
no origin."""


def add_scorecard_page(api: FastAPI, state: ConsoleState, store: ObjectStore) -> None:
    """Add ``GET /v1/projects/{project}/runs/{run_id}/scorecard``, the page of a run's last verdict.

    Status 404: there is none. 409: a review of the project's answers is open. 503: the store is away.
    """

    @api.get("/v1/projects/{project}/runs/{run_id}/scorecard", response_class=HTMLResponse)
    @needs(Role.VIEWER)
    async def show_scorecard(project: str, run_id: str) -> HTMLResponse:
        """The page of a run's last verdict, withheld while a review of the project's answers is open."""
        view = project_of(state, project)
        run = run_of(view, run_id)
        if run.verdict is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"{project} has no verdict on {run.run_id}")
        if waiting := unblinding(view):
            reason = (
                f"a review of {', '.join(waiting)} is open, and the page says whose answers are whose; it "
                "can be read once the review has ended"
            )
            raise Refused(HTTPStatus.CONFLICT, "run_id", reason)
        path = PurePosixPath(run.verdict.scorecard.path).with_suffix(".html")
        page = await store.read(str(path))
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"the scorecard of {run.run_id} has no page")
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


def add_login_links(api: FastAPI, links: LoginLinks, access: Access) -> None:
    """Add ``POST /v1/login-links``. Status 201 with ``path``, a link that logs a browser in once, and
    ``expires_at``. 409: identity is open, so nobody logs in."""

    @api.post("/v1/login-links", status_code=HTTPStatus.CREATED)
    @needs(Role.VIEWER)
    async def make_login_link(request: Request) -> dict[str, str]:
        """A link that logs a browser in, once, as the key that asks for it."""
        if access.is_open:
            raise Refused(HTTPStatus.CONFLICT, None, "identity is open: the page asks nobody to log in")
        # a session's cookie does not suffice for another session
        credential = await access.credential(request.headers.get("authorization"))
        secret, ends = links.make(credential)
        return {"path": f"/login?link={secret}", "expires_at": datetime.fromtimestamp(ends, UTC).isoformat()}
