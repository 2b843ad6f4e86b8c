"""The one page. It draws itself from the state, and again whenever the state has news."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal

from nicegui import ui
from pydantic import ValidationError
from tunewheel_contracts.errors import TransientError, first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_contracts.events.training import TrainAction

from tunewheel_console.actions import Actions
from tunewheel_console.sections import draw_project
from tunewheel_console.state import ConsoleState, Project


class Page:
    """One open browser tab. A project's card is drawn anew when its turn has news, not with its traffic. The
    reviewer's name and the dialog of each review stand outside the cards, so that typing is never lost."""

    def __init__(self, state: ConsoleState, actions: Actions, *, refresh_seconds: float) -> None:
        self._state = state
        self._actions = actions
        self._refresh_seconds = refresh_seconds
        self._drawn = -1
        self._cards: dict[str, ui.card] = {}
        self._drawn_cards: dict[str, int] = {}
        self._comments: dict[str, str] = {}
        """What was typed about each request for a review, by the request's id."""

    def build(self) -> None:
        """Draw the page and keep it fresh."""
        ui.query(".nicegui-content").classes("w-full")
        with ui.header().classes("items-center"):
            ui.label("Tunewheel").classes("text-h6")
            ui.space()
            self._letters = ui.badge("0 dead letters").mark("dead-letters")
            with self._letters:
                self._letters_told = ui.tooltip("none")
        with ui.expansion("Reviewer", icon="rate_review", value=True).classes("w-full"), ui.row():
            self._reviewer = ui.input("your name").mark("reviewer")
        self._dialogs = ui.element()
        self._projects = ui.column().classes("w-full")
        with self._projects:
            self._empty = ui.label("No project is declared yet: tunewheel declare project.yaml")
        self._draw()
        ui.timer(self._refresh_seconds, self._draw_on_news)

    def _draw_on_news(self) -> None:
        if self._state.version != self._drawn:
            self._draw()

    def _draw(self) -> None:
        self._drawn = self._state.version
        letters = self._state.dead_letters
        total = sum(letters.values())
        self._letters.set_text(f"{total} dead letter{'' if total == 1 else 's'}")
        self._letters.props(f"color={'negative' if total else 'positive'}")
        self._letters_told.set_text(", ".join(f"{name} {n}" for name, n in letters.items()) or "none")
        self._empty.set_visibility(not self._state.projects)
        for project in self._state.projects.values():
            if self._drawn_cards.get(project.name) != project.version:
                self._draw_card(project)

    def _draw_card(self, project: Project) -> None:
        self._drawn_cards[project.name] = project.version
        if project.name not in self._cards:
            with self._projects:
                self._cards[project.name] = ui.card().classes("w-full").mark(f"project-{project.name}")
        card = self._cards[project.name]
        card.clear()
        with card:
            draw_project(project, self)

    async def build_dataset(self, project: str) -> None:
        await self._tell(self._actions.build(project), f"asked for a new version of {project}")

    async def control(self, project: str, run_id: str, action: TrainAction) -> None:
        await self._tell(self._actions.control(project, run_id, action), f"{action.value} sent to {run_id}")

    def review(self, request: Envelope[ReviewRequested], *, approved: bool) -> None:
        """Ask for a comment on this run alone, and send the verdict once it is confirmed."""
        if not (self._reviewer.value or "").strip():
            ui.notify("Enter your name first: a review is signed", type="warning")
            return
        asked, word = request.data, "Approve" if approved else "Reject"

        async def send() -> None:
            await self._send_review(request, approved=approved)
            dialog.close()

        with self._dialogs, ui.dialog() as dialog, ui.card().classes("w-96"):
            ui.label(f"{word} {asked.run_id} of {asked.project}?").classes("text-subtitle1")
            if not approved:
                ui.label("A rejection is final for this version.").classes("text-caption")
            comment = ui.textarea("comment").classes("w-full").mark("comment")
            comment.bind_value(self._comments, request.id)
            with ui.row().classes("w-full justify-end"):
                ui.button("Back", on_click=dialog.close).props("flat")
                ui.button(f"{word} this version", on_click=send).mark("confirm")
        dialog.on_value_change(lambda change: None if change.value else dialog.delete())
        dialog.open()

    async def _send_review(self, request: Envelope[ReviewRequested], *, approved: bool) -> None:
        verdict: Literal["approved", "rejected"] = "approved" if approved else "rejected"
        work = self._actions.review(
            request,
            reviewer=(self._reviewer.value or "").strip(),
            verdict=verdict,
            comment=self._comments.get(request.id) or "",
        )
        await self._tell(work, f"{request.data.run_id} {verdict}")

    async def _tell(self, work: Awaitable[None], done: str) -> None:
        try:
            await work
        except TransientError as error:
            ui.notify(f"not sent: {error}", type="negative")
        except ValidationError as error:
            field, reason = first_complaint(error)
            ui.notify(f"not sent: {field} {reason}", type="negative")
        else:
            ui.notify(done, type="positive")
