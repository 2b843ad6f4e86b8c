"""``/v1/projects/{project}/erasures``: requests for erasure, and how far each holder of data is."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import FastAPI, Request
from tunewheel_contracts.api.commands import Erasure, ErasureOrder, ErasureOrdered, Holding
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.identity import content_id
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import Actions
from tunewheel_console.control.naming import Key, named
from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import project_of, resolve
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState


def add_erasures(api: FastAPI, state: ConsoleState, actions: Actions) -> None:
    """Add the routes. They name people, so that only operators may read them."""

    @api.post("/v1/projects/{project}/erasures", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def request_erasure(
        request: Request, project: str, order: ErasureOrder, key: Key = None
    ) -> ErasureOrdered:
        """Erase everything that was published so far about a person, or from one source. It cannot be
        undone. A request under the name of an earlier one is that one."""
        view, now = project_of(state, project), datetime.now(UTC)
        subject = (order.customer, order.source_id)
        name = named(order, key) or content_id("erasure", [project, *subject, now.isoformat()])
        before = view.commands.erasures.get(name)
        if before is not None and (before.data.customer, before.data.source_id) != subject:
            reason = f"{name!r} is the name of another erasure; choose another name"
            raise Refused(HTTPStatus.CONFLICT, "request", reason)
        event = before or await actions.give(
            ErasureRequested, project=project, principal=caller_of(request).principal, requested_at=now,
            erasure_id=name, **order.model_dump(exclude={"request"}),
        )  # fmt: skip
        return ErasureOrdered(project=project, command_id=event.id, erasure_id=name)

    @api.get("/v1/projects/{project}/erasures")
    @needs(Role.OPERATOR)
    async def list_erasures(project: str, asked: Paged) -> Page[Erasure]:
        """The requests for erasure, newest first."""
        view = project_of(state, project)
        found = view.commands.erasures.values()
        return page_of(found, asked, place=_place, answer=lambda one: erasure_of(view, one))

    @api.get("/v1/projects/{project}/erasures/{erasure_id}")
    @needs(Role.OPERATOR)
    async def show_erasure(project: str, erasure_id: str) -> Erasure:
        """How far each holder of data is, and which versions and models still hold the data."""
        view = project_of(state, project)
        found = view.commands.erasures
        newest = sorted(found, key=lambda name: _place(found[name]), reverse=True)
        name = resolve(erasure_id, newest, field="erasure_id", project=project)
        return erasure_of(view, found[name])


def erasure_of(view: Project, event: Envelope[ErasureRequested]) -> Erasure:
    """Return how far an erasure is."""
    asked, proofs = event.data, view.commands.proofs(event.data.erasure_id)
    curate = proofs.get("curate")
    held = {*curate.dataset_ids} if curate else set[str]()
    deleted = {*curate.deleted_dataset_ids} if curate else set[str]()
    made = view.wheel.facts.made
    # a model whose training ended after the erasure is not in the proof
    models = {*(curate.model_ids if curate else ())}.union(*(made.get(name, set[str]()) for name in held))
    missing = tuple(name for name in HOLDERS if name not in proofs)
    return Erasure(
        erasure_id=asked.erasure_id,
        project=event.project,
        command_id=event.id,
        state="waiting" if missing else "done",
        customer=asked.customer,
        source_id=asked.source_id,
        requested_by=asked.requested_by,
        requested_at=asked.requested_at or event.time,
        reason=asked.reason,
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
