"""The prompts of production that wait for a trusted answer, as a page: one line for each request."""

from __future__ import annotations

from collections import Counter

from nicegui import ui
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import LabelsRequested
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role

from tunewheel_console.labelling import Labelling
from tunewheel_console.page import RELOAD_WHEN_LOGGED_OUT, Who
from tunewheel_console.review_drawing import draw_header
from tunewheel_console.state import ConsoleState

ENDED = 20
"""Latest requests that have ended and are still listed."""
Line = tuple[Envelope[LabelsRequested], str | None, Counter[str]]


class LabelList:
    """One browser tab with the list, read anew at every refresh: other consoles take answers too."""

    def __init__(
        self,
        state: ConsoleState,
        labelling: Labelling,
        caller: Caller,
        who: Who,
        *,
        refresh_seconds: float,
    ) -> None:
        self._state = state
        self._labelling = labelling
        self._caller = caller
        self._who = who
        self._refresh_seconds = refresh_seconds
        self._drawn: list[Line] | None = None

    def build(self, *, csrf: str | None, root: str) -> None:
        draw_header(self._caller, csrf=csrf, root=root)
        self._root = root
        self._shown = ui.column().classes("w-full").mark("labels")
        self._timer = ui.timer(self._refresh_seconds, self._refresh)
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)

    async def _refresh(self) -> None:
        try:
            self._caller = await self._who()
            lines = await self._lines()
        except NotAuthenticated as error:
            self._timer.cancel()
            self._tell(str(error))
        except TransientError as error:
            self._tell(f"cannot be read now: {error}")
        else:
            if lines != self._drawn:
                self._draw(lines)

    async def _lines(self) -> list[Line]:
        return [
            (request, project.labels.outcome_of(name), await self._labelling.done(request.data))
            for project in list(self._state.projects.values())
            if self._caller.may(Role.REVIEWER, project.name)
            for name, request in list(project.labels.by_id.items())
        ]

    def _tell(self, reason: str) -> None:
        self._drawn = None
        self._shown.clear()
        with self._shown:
            ui.label(reason)

    def _draw(self, lines: list[Line]) -> None:
        self._drawn = lines
        waiting = [line for line in lines if line[1] is None]
        ended = [line for line in lines if line[1] is not None][-ENDED:]
        self._shown.clear()
        with self._shown:
            for title, found in (("Waiting for answers", waiting), ("Ended", ended)):
                ui.label(title).classes("text-subtitle1").props("role=heading aria-level=2")
                for line in found:
                    self._draw_line(*line)
                if not found:
                    ui.label("none").classes("text-caption text-grey")

    def _draw_line(self, request: Envelope[LabelsRequested], outcome: str | None, done: Counter[str]) -> None:
        asked = request.data
        path = f"labels/{asked.project}/{asked.request_id}"
        with ui.row().classes("items-center"):
            ui.link(f"{asked.project}: {', '.join(asked.keywords) or asked.request_id}").props(
                f'href="{self._root}{path}"'
            )
            left_out = f", {done['out_of_scope']} out of scope" if done["out_of_scope"] else ""
            told = f"{done['answered']} answered of {asked.wanted} wanted{left_out}"
            ui.label(f"{told}; {outcome}" if outcome else told).classes("text-caption")
