"""A page that lists reviews, or requests for labels: the waiting ones and the ended ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from nicegui import ui
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role

from tunewheel_console.label_queue import cost_text
from tunewheel_console.labelling import Labelling
from tunewheel_console.page import RELOAD_WHEN_LOGGED_OUT, Who
from tunewheel_console.queues import Review
from tunewheel_console.refusals import reviewer_of
from tunewheel_console.review_drawing import draw_header
from tunewheel_console.state import ConsoleState

ENDED = 20
"""How many of the latest ended lines are listed."""
LABEL_TITLES = ("Waiting for answers", "Ended")
REVIEW_TITLES = ("Waiting for you", "Submitted or ended")


class Line(NamedTuple):
    """One review, or one request for labels."""

    name: str
    path: str
    """The path of its page, relative to the console's root."""
    progress: str
    """Its progress."""
    waits: bool


Read = Callable[[Caller], Awaitable[list[Any]]]
"""Returns the entries that a caller may see. Raises ``TransientError`` while the store is away."""
Draw = Callable[[list[Any], str], None]
"""Draws the entries; the second argument is the console's root, relative to the page's address."""


class Listing:
    """One browser tab with a list. The list is read at every refresh, and drawn again after a change."""

    def __init__(self, read: Read, draw: Draw, caller: Caller, who: Who, *, refresh_seconds: float) -> None:
        self._read = read
        self._draw = draw
        self._caller = caller
        self._who = who
        self._refresh_seconds = refresh_seconds
        self._drawn: list[Any] | None = None

    def build(self, *, csrf: str | None, root: str) -> None:
        draw_header(self._caller, csrf=csrf, root=root)
        self._root = root
        self._shown = ui.column().classes("w-full")
        self._timer = ui.timer(self._refresh_seconds, self._refresh)
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)

    async def _refresh(self) -> None:
        try:
            self._caller = await self._who()
            lines = await self._read(self._caller)
        except NotAuthenticated as error:
            self._timer.cancel()
            self._tell(str(error))
        except TransientError as error:
            self._tell(f"cannot be read now: {error}")
        else:
            if lines != self._drawn:
                self._drawn = lines
                self._shown.clear()
                with self._shown:
                    self._draw(lines, self._root)

    def _tell(self, reason: str) -> None:
        self._drawn = None
        self._shown.clear()
        with self._shown:
            ui.label(reason)


def queue_list(read: Read, titles: tuple[str, str], caller: Caller, who: Who, **fresh: float) -> Listing:
    """Return the tab of a queue, whose lines are read oldest first. ``titles``: of the waiting lines, and of
    the ended ones."""
    return Listing(read, partial(draw_lines, titles), caller, who, **fresh)


def draw_lines(titles: tuple[str, str], lines: list[Line], root: str) -> None:
    waiting = [line for line in lines if line.waits]
    ended = [line for line in lines if not line.waits][-ENDED:]
    for title, found in zip(titles, (waiting, ended), strict=True):
        ui.label(title).classes("text-subtitle1").props("role=heading aria-level=2")
        for line in found:
            with ui.row().classes("items-center"):
                ui.link(line.name).props(f'href="{root}{line.path}"')
                ui.label(line.progress).classes("text-caption")
        if not found:
            ui.label("none").classes("text-caption text-grey")


async def label_lines(state: ConsoleState, labelling: Labelling, caller: Caller) -> list[Line]:
    """Return the requests that ``caller`` may answer. The progress is read from the store, because other
    consoles take answers too.

    Raises:
        TransientError: the store is away.
    """
    lines: list[Line] = []
    for project in list(state.projects.values()):
        if not caller.may(Role.REVIEWER, project.name):
            continue
        for name, request in list(project.labels.by_id.items()):
            asked, outcome = request.data, project.labels.outcome_of(name)
            done = await labelling.done(asked)
            progress = f"{done['answered']} answered of {asked.wanted} wanted"
            progress += f", {done['out_of_scope']} out of scope" if done["out_of_scope"] else ""
            if outcome is None and project.spec is not None:
                progress += cost_text(project.spec.drift.labels, asked.wanted - done["answered"])
            lines.append(
                Line(
                    name=f"{project.name}: {', '.join(asked.keywords) or name}",
                    path=f"labels/{project.name}/{name}",
                    progress=f"{progress}; {outcome}" if outcome else progress,
                    waits=outcome is None,
                )
            )
    return lines


async def review_lines(state: ConsoleState, caller: Caller) -> list[Line]:
    """Return the reviews that ``caller`` may answer."""
    reviewer = "" if caller.principal is None else reviewer_of(caller, None)
    return [
        Line(
            name=f"{project.name} {review_id}",
            path=f"reviews/{project.name}/{review_id}",
            progress=_progress(review, reviewer),
            waits=review.waits_for(reviewer),
        )
        for project in state.projects.values()
        if caller.may(Role.REVIEWER, project.name)
        for review_id, review in project.reviews.by_id.items()
        if review.request is not None
    ]


def _progress(review: Review, reviewer: str) -> str:
    assert review.request is not None
    asked = f"{len(review.submitters)} of {review.people} people submitted"
    done = review.outcome or ("its trial runs" if review.comparisons else asked)
    answered = review.preferences_of(reviewer).total()
    return f"you answered {answered}, of {review.request.data.items} items in all; {done}"
