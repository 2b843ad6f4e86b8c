"""What people take back: requests for erasure, and documents that later versions do not hold."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from http import HTTPStatus

from fastapi import FastAPI, Request
from tunewheel_contracts.api.commands import (
    DocumentsWithdrawn,
    Erasure,
    ErasureOrder,
    ErasureOrdered,
    Holding,
    WithdrawalOrder,
)
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested
from tunewheel_contracts.identity import content_id
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import Actions
from tunewheel_console.control.log import Log
from tunewheel_console.control.orders import declared
from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import Key, View, find, named, told
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState


def add_erasures(api: FastAPI, actions: Actions) -> None:
    """Add the routes. They name people, so that only operators may read them."""

    @api.post("/v1/projects/{project}/erasures", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def request_erasure(
        request: Request, view: View, order: ErasureOrder, key: Key = None
    ) -> ErasureOrdered:
        """Erase everything that was published so far about a person, or from one source. It cannot be
        undone. A request under the name of an earlier one is that one."""
        view, now = view, datetime.now(UTC)
        subject = (order.customer, order.source_id)
        name = named(order, key) or content_id("erasure", [view.name, *subject, now.isoformat()])
        before = view.commands.erasures.get(name)
        if before is not None and (before.data.customer, before.data.source_id) != subject:
            reason = f"{name!r} is the name of another erasure; choose another name"
            raise Refused(HTTPStatus.CONFLICT, "request", reason)
        event = before or await actions.give(
            ErasureRequested, project=view.name, principal=caller_of(request).principal, requested_at=now,
            erasure_id=name, **order.model_dump(exclude={"request"}),
        )  # fmt: skip
        return ErasureOrdered(project=view.name, command_id=event.id, erasure_id=name)

    @api.get("/v1/projects/{project}/erasures")
    @needs(Role.OPERATOR)
    async def list_erasures(view: View, asked: Paged) -> Page[Erasure]:
        """The requests for erasure, newest first."""
        found = view.commands.erasures.values()
        return page_of(found, asked, place=_place, answer=lambda one: erasure_of(view, one))

    @api.get("/v1/projects/{project}/erasures/{erasure_id}")
    @needs(Role.OPERATOR)
    async def show_erasure(view: View, erasure_id: str) -> Erasure:
        """How far each holder of data is, and which versions and models still hold the data."""
        found = view.commands.erasures
        return erasure_of(view, find(erasure_id, found, _place, field="erasure_id", project=view.name))


def erasure_of(view: Project, event: Envelope[ErasureRequested]) -> Erasure:
    asked, proofs = event.data, view.commands.proofs(event.data.erasure_id)
    curate = proofs.get("curate")
    held = {*curate.dataset_ids} if curate else set[str]()
    deleted = {*curate.deleted_dataset_ids} if curate else set[str]()
    made = view.wheel.facts.made
    # a model whose training ended after the erasure is not in the proof
    models = {*(curate.model_ids if curate else ())}.union(*(made.get(name, set[str]()) for name in held))
    missing = tuple(name for name in HOLDERS if name not in proofs)
    return told(
        Erasure,
        asked,
        command_id=event.id,
        state="waiting" if missing else "done",
        requested_at=asked.requested_at or event.time,
        holders=tuple(
            Holding(holder=name, done=True, records=found.records, completed_at=found.completed_at)
            if (found := proofs.get(name)) is not None
            else Holding(holder=name)
            for name in HOLDERS
        ),
        missing=missing,
        dataset_ids=tuple(sorted(held - deleted)),
        deleted_dataset_ids=tuple(sorted(deleted)),
        model_ids=tuple(sorted(models)),
    )


def _place(event: Envelope[ErasureRequested]) -> tuple[datetime, str]:
    return event.time, event.data.erasure_id


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
