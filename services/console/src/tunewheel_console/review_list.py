"""The reviews of answers that wait for somebody, and those that have ended, as a page."""

from __future__ import annotations

from nicegui import ui
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role

from tunewheel_console.page import RELOAD_WHEN_LOGGED_OUT, Who
from tunewheel_console.refusals import reviewer_of
from tunewheel_console.review_drawing import draw_header
from tunewheel_console.review_state import Review
from tunewheel_console.state import ConsoleState

ENDED = 20
"""Latest reviews that have ended and are still listed."""


class ReviewList:
    """One browser tab with the list, drawn anew when the log has news."""

    def __init__(self, state: ConsoleState, caller: Caller, who: Who, *, refresh_seconds: float) -> None:
        self._state = state
        self._caller = caller
        self._who = who
        self._refresh_seconds = refresh_seconds
        self._drawn = -1

    def build(self, *, csrf: str | None, root: str) -> None:
        draw_header(self._caller, csrf=csrf, root=root)
        self._root = root
        self._shown = ui.column().classes("w-full").mark("reviews")
        self._draw()
        self._timer = ui.timer(self._refresh_seconds, self._refresh)
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)

    async def _refresh(self) -> None:
        try:
            self._caller = await self._who()
        except NotAuthenticated as error:
            self._timer.cancel()
            self._shown.clear()
            with self._shown:
                ui.label(str(error))
            return
        if self._drawn != self._state.version:
            self._draw()

    def _draw(self) -> None:
        self._drawn = self._state.version
        known = [
            (project.name, review_id, review)
            for project in self._state.projects.values()
            if self._caller.may(Role.REVIEWER, project.name)
            for review_id, review in project.reviews.by_id.items()
            if review.request is not None
        ]
        waiting = [one for one in known if one[2].waits_for(self._reviewer)]
        ended = [one for one in known if not one[2].waits_for(self._reviewer)][-ENDED:]
        self._shown.clear()
        with self._shown:
            for title, found in (("Waiting for you", waiting), ("Submitted or ended", ended)):
                ui.label(title).classes("text-subtitle1").props("role=heading aria-level=2")
                for project, review_id, review in found:
                    self._draw_one(project, review_id, review)
                if not found:
                    ui.label("none").classes("text-caption text-grey")

    @property
    def _reviewer(self) -> str:
        return "" if self._caller.principal is None else reviewer_of(self._caller, None)

    def _draw_one(self, project: str, review_id: str, review: Review) -> None:
        assert review.request is not None
        asked = review.request.data
        done = review.outcome or f"{len(review.submitters)} of {asked.reviewers or 1} people submitted"
        with ui.row().classes("items-center"):
            ui.link(f"{project} {review_id}").props(f'href="{self._root}reviews/{project}/{review_id}"')
            answered = review.preferences_of(self._reviewer).total()
            ui.label(f"you answered {answered}, of {asked.items} items in all; {done}").classes(
                "text-caption"
            )
