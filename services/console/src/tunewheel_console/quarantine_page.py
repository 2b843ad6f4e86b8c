"""A page that lists the records of a project that wait for a person, with what was found and two buttons."""

from __future__ import annotations

from functools import partial
from itertools import groupby

from nicegui import ui
from tunewheel_contracts.api.quarantine import QuarantineItem
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, NotAuthorised, Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.control.quarantine import quarantined
from tunewheel_console.page import Who
from tunewheel_console.state import ConsoleState

SHOWN = 50
"""How many records of each reason are drawn. The others come up once these are judged."""


async def waiting(state: ConsoleState, store: ObjectStore, name: str, caller: Caller) -> list[QuarantineItem]:
    """Return the records of project ``name`` that wait, by reason.

    Raises:
        TransientError: the store is away.
    """
    if not caller.may(Role.VIEWER, name):
        return []
    await state.projects.open(name)
    project = state.projects.get(name)
    found = await quarantined(project, store) if project is not None else []
    return [one for one in found if one.state == "waiting"]


def draw_quarantine(actions: Actions, project: str, who: Who, found: list[QuarantineItem], root: str) -> None:
    """Draw the records, and buttons for one record and for all records of a reason."""

    async def judge(records: tuple[str, ...], verdict: str) -> None:
        try:
            caller = await who()
            caller.require(Role.REVIEWER, project)
            await actions.judge(project, records, verdict=verdict, comment="", principal=caller.principal)
        except (NotAuthenticated, NotAuthorised, Refused, TransientError) as error:
            ui.notify(str(error), type="negative")
        else:
            ui.notify(f"{verdict}: {len(records)}; the next version applies it")

    def buttons(records: tuple[str, ...], name: str, all_of: str = "") -> None:
        for verdict in ("release", "refuse"):
            button = ui.button(f"{verdict}{all_of}", on_click=partial(judge, records, verdict))
            button.props("dense flat size=sm").mark(f"{verdict}-{name}")

    if not found:
        ui.label("No record waits for a person.")
    for reason, group in groupby(found, key=lambda one: one.reason):
        items = list(group)
        with ui.row().classes("items-center"):
            title = ui.label(f"{reason}: {len(items)}").classes("text-subtitle1")
            title.props("role=heading aria-level=2")
            buttons(tuple(one.record_id for one in items), reason, " all of these")
        for one in items[:SHOWN]:
            with ui.card().classes("w-full gap-1").mark(f"record-{one.record_id}"):
                ui.label(one.evidence).classes("text-caption")
                ui.label(one.input).classes("whitespace-pre-wrap")
                ui.label(one.output or "").classes("whitespace-pre-wrap text-grey")
                with ui.row().classes("items-center"):
                    whom = f"{one.kind}, {one.trust}{f', from {one.origin}' if one.origin else ''}"
                    ui.label(whom).classes("text-caption")
                    buttons((one.record_id,), one.record_id)
