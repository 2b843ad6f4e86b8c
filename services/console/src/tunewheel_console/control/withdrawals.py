"""``POST /v1/projects/{project}/withdrawals``: later dataset versions do not hold some documents."""

from __future__ import annotations

from difflib import get_close_matches
from http import HTTPStatus

from fastapi import FastAPI, Request
from tunewheel_contracts.api.commands import DocumentsWithdrawn, WithdrawalOrder
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.actions import Actions
from tunewheel_console.control.log import Log
from tunewheel_console.control.orders import declared
from tunewheel_console.state import ConsoleState


def add_withdrawals(api: FastAPI, state: ConsoleState, actions: Actions, log: Log) -> None:
    """Add the route, for publishers."""

    @api.post("/v1/projects/{project}/withdrawals", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.PUBLISHER)
    async def withdraw_documents(
        request: Request, project: str, order: WithdrawalOrder
    ) -> DocumentsWithdrawn:
        """Withdraw documents. Publishing one again brings it back. An id that neither the project's index nor
        the last days of the log name is withdrawn too, and told in `warnings`: it may be mistyped."""
        declared(state, project)
        documents = tuple(dict.fromkeys(order.documents))
        known = await log.documents(project)
        events = await actions.give_each(
            DocumentWithdrawn, ({"document_id": name} for name in documents), project=project,
            reason=order.reason, principal=caller_of(request).principal,
        )  # fmt: skip
        ids = tuple(event.id for event in events)
        warnings = tuple(_unknown(name, known) for name in documents if name not in known)
        return DocumentsWithdrawn(project=project, command_id=ids[0], command_ids=ids, warnings=warnings)


def _unknown(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "ids are paths below what was published"
    return f"{name!r} is withdrawn, but neither the index nor the last days of the log name it; {hint}"
