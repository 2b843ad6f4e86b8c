"""The main page. It draws the state, and draws it again after every change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from nicegui import ui
from pydantic import ValidationError
from tunewheel_contracts.api.projects import ProjectSummary
from tunewheel_contracts.errors import TransientError, first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, NotAuthorised, Role

from tunewheel_console import rows
from tunewheel_console.actions import Actions, ModelAction
from tunewheel_console.project import Project
from tunewheel_console.sections import draw_project
from tunewheel_console.state import ConsoleState

FINAL = "A rejection is final for this version."
Who = Callable[[], Awaitable[Caller]]
"""Returns the caller with its current roles; raises ``NotAuthenticated`` once the person is logged out."""
RELOAD_WHEN_LOGGED_OUT = """
window.socket.on('connect_error', async () => {
  const answer = await fetch(window.location.href, {method: 'HEAD'});
  if (answer.status === 401) window.location.reload();
});
"""
"""After logout the page's connection is refused without a reason, so the page asks over HTTP and reloads."""


class Page:
    """One open browser tab.

    A project's card is drawn again when its turn changes, but not for traffic. The reviewer's name and the
    dialogs of reviews are outside the cards, so that input is never lost.

    The tab shows what its caller may read. The caller's roles are checked at every refresh and every click.
    """

    def __init__(
        self, state: ConsoleState, actions: Actions, caller: Caller, who: Who, *, refresh_seconds: float
    ) -> None:
        self._state = state
        self._actions = actions
        self._caller = caller
        self._who = who
        self._refresh_seconds = refresh_seconds
        self._drawn = -1
        self._cards: dict[str, ui.card] = {}
        self._drawn_cards: dict[str, object] = {}
        self._comments: dict[str, str] = {}
        """The input of each dialog, by the request's id or by the command."""

    def build(self, *, csrf: str | None = None, root: str = "./") -> None:
        """Draw the page and keep it fresh.

        Args:
            csrf: the session's token, for the logout button; None: there is no session.
            root: the console's root, relative to the page's address.
        """
        self._root = root
        ui.query(".nicegui-content").classes("w-full")
        with ui.header().classes("items-center"):
            ui.label("Tunewheel").classes("text-h6")
            ui.link("Projects", f"{root}projects").classes("text-white")
            self._reviews = ui.link("Reviews", f"{root}reviews").classes("text-white")
            self._labels = ui.link("Labels", f"{root}labels").classes("text-white")
            ui.space()
            self._letters = ui.badge("0 dead letters").mark("dead-letters")
            with self._letters:
                self._letters_told = ui.tooltip("none")
            self._name = ui.label().mark("caller")
            if csrf is not None:
                draw_logout(csrf, root)
        self._signature = ui.expansion("Reviewer", icon="rate_review", value=True).classes("w-full")
        with self._signature, ui.row():
            self._reviewer = ui.input("your name", value=self._caller.name or "").mark("reviewer")
        self._dialogs = ui.element()
        self._client = ui.context.client
        self._projects = ui.column().classes("w-full")
        with self._projects:
            self._empty = ui.label()
        self._draw_caller()
        self._draw()
        self._timer = ui.timer(self._refresh_seconds, self._refresh)
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)

    async def _refresh(self) -> None:
        if await self._ask_who() and self._state.version != self._drawn:
            self._draw()

    async def _ask_who(self) -> bool:
        """Update the caller and its roles. False: nobody is logged in any more."""
        try:
            caller = await self._who()
        except NotAuthenticated as error:
            self._end(str(error))
            return False
        if caller != self._caller:
            self._caller = caller
            self._drawn, self._drawn_cards = -1, {}
            self._draw_caller()
        return True

    def _end(self, reason: str) -> None:
        """Clear the page and make the browser reload. Clearing is needed because a browser may not reload."""
        self._timer.cancel()
        self._dialogs.clear()
        self._projects.clear()
        self._signature.set_visibility(False)
        self._letters.set_visibility(False)
        self._name.set_text(reason)
        with self._client:  # the clicked element may not exist any more
            ui.navigate.reload()

    def _draw_caller(self) -> None:
        caller = self._caller
        self._name.set_text(
            "anybody: identity is open" if caller.name is None else f"{caller.name} ({rows.roles(caller)})"
        )
        self._signature.set_visibility(caller.may(Role.REVIEWER))
        self._reviews.set_visibility(caller.may(Role.REVIEWER))
        self._labels.set_visibility(caller.may(Role.REVIEWER))

    def _draw(self) -> None:
        self._drawn = self._state.version
        visible = self._caller.projects_of(Role.VIEWER)
        self._draw_letters(shown=visible is None)
        for name in [name for name in self._cards if visible is not None and name not in visible]:
            self._cards.pop(name).delete()
        projects = [one for one in self._state.projects.values() if visible is None or one.name in visible]
        self._empty.set_text(
            "No project is declared yet: tunewheel project declare project.yaml"
            if visible is None
            else f"None of the projects that you may read is declared yet: {', '.join(sorted(visible))}"
        )
        resting = [one for one in self._state.projects.resting if visible is None or one in visible]
        self._empty.set_visibility(not projects and not resting)
        for name in resting:
            summary = self._state.projects.resting[name].summary
            if name not in self._cards or self._drawn_cards.get(name) != summary:
                self._draw_resting(name, summary)
        for project in projects:
            if self._drawn_cards.get(project.name) != project.version:
                self._draw_card(project)

    def _draw_letters(self, *, shown: bool) -> None:
        """Draw the number of dead letters. It covers all projects, so only callers who may read all see
        it."""
        letters = self._state.dead_letters if shown else {}
        total = sum(letters.values())
        self._letters.set_visibility(shown)
        self._letters.set_text(f"{total} dead letter{'' if total == 1 else 's'}")
        self._letters.props(f"color={'negative' if total else 'positive'}")
        self._letters_told.set_text(", ".join(f"{name} {n}" for name, n in letters.items()) or "none")

    def _draw_resting(self, name: str, summary: ProjectSummary | None) -> None:
        """Draw what is said of a project at rest, and a button that takes it into memory."""
        with self._card(name, summary), ui.row().classes("w-full items-center"):
            ui.label(name).classes("text-h6")
            if summary is not None:
                ui.label(f"{summary.place}; {summary.counts.runs} runs").classes("text-caption")
            ui.button("Show", on_click=partial(self._show, name)).props("flat").mark(f"show-{name}")

    async def _show(self, name: str) -> None:
        await self._state.projects.open(name)
        self._draw()

    def _draw_card(self, project: Project) -> None:
        with self._card(project.name, project.version):
            draw_project(project, self)

    def _card(self, name: str, drawn: object) -> ui.card:
        """Return the project's empty card. ``drawn``: what the card will show."""
        self._drawn_cards[name] = drawn
        if name not in self._cards:
            with self._projects:
                self._cards[name] = ui.card().classes("w-full").mark(f"project-{name}")
        self._cards[name].clear()
        return self._cards[name]

    def may(self, role: Role, project: str) -> bool:
        return self._caller.may(role, project)

    def link_to(self, path: str) -> str:
        """Return the address of a path of the console, relative to this page."""
        return f"{self._root}{path}"

    async def build_dataset(self, project: str) -> None:
        async def build(principal: Principal | None) -> None:
            await self._actions.build(project, principal=principal)

        await self._act(Role.OPERATOR, project, build, done=f"asked for a new version of {project}")

    async def control(self, project: str, run_id: str, action: TrainAction) -> None:
        async def control(principal: Principal | None) -> None:
            await self._actions.control(project, run_id, action, principal=principal)

        await self._act(Role.OPERATOR, project, control, done=f"{action.value} sent to {run_id}")

    def review(self, request: Envelope[ReviewRequested], *, approved: bool) -> None:
        """Ask for a comment on this run, and send the verdict once it is confirmed."""
        if not self._signed:
            ui.notify("Enter your name first: a review is signed", type="warning")
            return
        asked, word = request.data, "Approve" if approved else "Reject"

        async def send() -> bool:
            await self._send_review(request, approved=approved)
            return True

        title = f"{word} {asked.run_id} of {asked.project}?"
        warning = None if approved else FINAL
        self._ask(title, request.id, send, word=f"{word} this version", text="comment", warning=warning)

    def command(self, project: str, model_id: str, action: ModelAction) -> None:
        """Ask for a reason, and send the command once it is confirmed.

        The command takes effect only if nothing has changed since the dialog opened. ``stop`` always takes
        effect; then ``model_id`` is the model that answers all traffic.
        """
        view, stops = self._state.projects.get(project), action is ModelAction.STOP
        desired = view.desired if view is not None and not stops else None
        seen = desired.generation if desired is not None else None
        key = f"{action.value} {model_id} of {project}"
        title = f"stop all but the {model_id} of {project}?" if stops else f"{key}?"

        async def send() -> bool:
            reason = (self._comments.get(key) or "").strip()
            if not reason:
                ui.notify("Say why first: the reason stays on the log", type="warning")
                return False

            async def order(principal: Principal | None) -> None:
                await self._actions.command(
                    project, model_id, action.value, reason=reason, force=False, generation=seen,
                    principal=principal,
                )  # fmt: skip

            await self._act(Role.OPERATOR, project, order, done=f"{action.value} sent for {model_id}")
            return True

        warning = FINAL if action is ModelAction.REJECT else None
        self._ask(title, key, send, word="Send", text="reason", warning=warning)

    def _ask(
        self,
        title: str,
        key: str,
        send: Callable[[], Awaitable[bool]],
        *,
        word: str,
        text: str,
        warning: str | None,
    ) -> None:
        """Open a dialog with a field for ``text``. The input is kept under ``key``. The dialog closes once
        ``send`` returns True."""

        async def confirm() -> None:
            if await send():
                dialog.close()

        with self._dialogs, ui.dialog() as dialog, ui.card().classes("w-96"):
            ui.label(title).classes("text-subtitle1")
            if warning is not None:
                ui.label(warning).classes("text-caption")
            ui.textarea(text).classes("w-full").mark(text).bind_value(self._comments, key)
            with ui.row().classes("w-full justify-end"):
                ui.button("Back", on_click=dialog.close).props("flat")
                ui.button(word, on_click=confirm).mark("confirm")
        dialog.on_value_change(lambda change: None if change.value else dialog.delete())
        dialog.open()

    @property
    def _signed(self) -> str:
        """Return the name that signs a review: the typed one, else the caller's."""
        return (self._reviewer.value or "").strip() or self._caller.name or ""

    async def _send_review(self, request: Envelope[ReviewRequested], *, approved: bool) -> None:
        verdict: Literal["approved", "rejected"] = "approved" if approved else "rejected"

        async def review(principal: Principal | None) -> None:
            comment = self._comments.get(request.id) or ""
            await self._actions.review(
                request, reviewer=self._signed, principal=principal, verdict=verdict, comment=comment
            )

        await self._act(Role.REVIEWER, request.data.project, review, done=f"{request.data.run_id} {verdict}")

    async def _act(
        self, role: Role, project: str, work: Callable[[Principal | None], Awaitable[None]], *, done: str
    ) -> None:
        """Do ``work`` as the caller, if the caller has ``role`` now. The tab's buttons may be outdated."""
        if not await self._ask_who():
            return
        try:
            self._caller.require(role, project)
            await work(self._caller.principal)
        except (TransientError, NotAuthorised) as error:
            ui.notify(f"not sent: {error}", type="negative")
        except ValidationError as error:
            field, reason = first_complaint(error)
            ui.notify(f"not sent: {field} {reason}", type="negative")
        else:
            ui.notify(done, type="positive")


def draw_logout(csrf: str, root: str) -> None:
    """Draw the logout button. It is a form, because only an answer over HTTP can delete the cookie."""
    with ui.element("form").props(f'method=post action="{root}logout"'):
        ui.element("input").props(f'type=hidden name=csrf value="{csrf}"')
        ui.button("Log out").props("type=submit flat dense color=white")
