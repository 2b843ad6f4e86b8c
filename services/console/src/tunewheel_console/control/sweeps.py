"""``/v1/projects/{project}/sweeps``: recipes that are tried on a dataset version."""

from __future__ import annotations

import uuid
from datetime import datetime
from http import HTTPStatus

from fastapi import FastAPI, Request
from tunewheel_contracts.api.commands import SweepOrder, SweepOrdered
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.runs import SweepDetail
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.events.training import SweepRequested
from tunewheel_contracts.formats.sweep import changed_recipe, demand_comparable
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.control.dataset_files import DatasetFiles
from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import Key, View, dataset_of, named, resolve
from tunewheel_console.project import Project
from tunewheel_console.run import OF_SWEEPS, Sweep


def add_sweeps(web: FastAPI) -> None:
    @web.get("/v1/projects/{project}/sweeps")
    @needs(Role.VIEWER)
    async def list_sweeps(view: View, asked: Paged) -> Page[SweepDetail]:
        """The recipes that were tried, newest first."""
        found = [*view.sweeps.items()]
        return page_of(found, asked, place=_place, answer=lambda one: _detail(*one))

    @web.get("/v1/projects/{project}/sweeps/{sweep_id}")
    @needs(Role.VIEWER)
    async def show_sweep(view: View, sweep_id: str) -> SweepDetail:
        """A sweep: each recipe, how far it was trained, and what it reached on the validation rows."""
        name = sweep_of(view, sweep_id)
        return _detail(name, view.sweeps[name])


def add_sweep_orders(web: FastAPI, actions: Actions, store: ObjectStore) -> None:
    files = DatasetFiles(store)

    @web.post("/v1/projects/{project}/sweeps", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def order_sweep(request: Request, view: View, order: SweepOrder, key: Key = None) -> SweepOrdered:
        """Try recipes on a dataset version. They are measured on validation rows, which are taken from its
        training rows: held-out rows are not read. Nothing becomes a model. Runs of turns go first. Status
        422: a field of a recipe is unknown or wrong."""
        dataset_id = dataset_of(view, order.dataset_id).data.dataset_id
        recipe = (await files.open(view, dataset_id)).manifest.spec.train
        try:
            demand_comparable(order.recipes)
            for changes in order.recipes:
                changed_recipe(recipe, changes)
        except InvalidSpec as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.field, error.reason) from error
        principal = caller_of(request).principal
        told = order.model_dump(mode="json") | {
            "dataset_id": dataset_id, "project": view.name,
            "request": named(order, key) or f"console-{uuid.uuid4().hex}",
        }  # fmt: skip
        by = principal.model_dump(mode="json") if principal else None
        sweep_id = f"{OF_SWEEPS}{content_sha256({**told, 'principal': by})[:12]}"
        event = await actions.give(SweepRequested, sweep_id=sweep_id, principal=principal, **told)
        return SweepOrdered(project=view.name, command_id=event.id, sweep_id=event.data.sweep_id)


def sweep_of(project: Project, asked: str) -> str:
    newest = [name for name, _ in sorted(project.sweeps.items(), key=_place, reverse=True)]
    return resolve(asked, newest, field="sweep_id", project=project.name)


def _place(named_sweep: tuple[str, Sweep]) -> tuple[datetime, str]:
    name, sweep = named_sweep
    first = sweep.asked or sweep.latest
    assert first is not None
    return first.time, name


def _detail(name: str, sweep: Sweep) -> SweepDetail:
    asked, latest = sweep.asked, sweep.latest
    first = asked or latest
    assert first is not None
    known = latest.data.model_dump() if latest else {"state": "waiting"}
    fields = first.data.model_dump(exclude={"principal", "signature"}) | known
    wanted = {name: value for name, value in fields.items() if name in SweepDetail.model_fields}
    by = asked.data.principal if asked else None
    times = {"created_at": _place((name, sweep))[0], "news_at": (latest or first).time}
    return SweepDetail.model_validate({**wanted, **times, "by": by.name if by else None})
