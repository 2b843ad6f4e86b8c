"""The page of one request for labels. It shows one prompt at a time, with a form for the answer.

``label_form`` determines the form's fields; ``labelling`` handles answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui
from tunewheel_contracts.formats.label_prompts import LabelPrompt
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role

from tunewheel_console.label_form import FormField, answer_of, fields_of
from tunewheel_console.label_queue import LabelQueue, cost_text
from tunewheel_console.labelling import Labelling
from tunewheel_console.page import RELOAD_WHEN_LOGGED_OUT, Who
from tunewheel_console.refusals import NOT_KEPT, reason_of, reviewer_of
from tunewheel_console.review_drawing import draw_header, draw_name_form, draw_text

FEW_CHOICES = 8
"""Up to this many choices are shown at once. More are shown as a list with a search."""
Values = dict[str, Callable[[], Any]]
"""By field, a function that returns its control's value."""


class LabelPage:
    """One browser tab with one request. The caller's roles are checked again at each click."""

    def __init__(
        self,
        labelling: Labelling,
        caller: Caller,
        who: Who,
        *,
        project: str,
        request_id: str,
        name: str | None,
        refresh_seconds: float,
    ) -> None:
        """``name``: the name of the person, if identity is open."""
        self._labelling = labelling
        self._caller = caller
        self._who = who
        self._project = project
        self._request_id = request_id
        self._name_given = name
        self._refresh_seconds = refresh_seconds
        self._one_click = asyncio.Lock()
        self._queue: LabelQueue | None = None
        self._number = 0
        self._values: Values = {}

    def build(self, *, csrf: str | None, root: str) -> None:
        """Draw the frame. The first prompt is drawn once the browser has opened the page's connection."""
        draw_header(self._caller, csrf=csrf, root=root)
        self._root = root
        self._told = ui.label().props("role=status aria-live=polite tabindex=-1 id=told").mark("told")
        self._shown = ui.column().classes("w-full")
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)
        if self._caller.principal is None and not self._name_given:
            with self._shown:
                draw_name_form()
            return
        self._timer = ui.timer(self._refresh_seconds, self._refresh)

    async def _refresh(self) -> None:
        """Open the request at the first call. Later calls check whether the session has ended."""
        if not await self._ask_who() or self._queue is not None:
            return
        try:
            queue = await self._opened()
        except NOT_KEPT as error:
            self._told.set_text(reason_of(error))
        else:
            self._draw(queue, queue.next_after(0, self._person))

    @property
    def _person(self) -> str | None:
        return reviewer_of(self._caller, None) if self._caller.principal else self._name_given

    async def _opened(self) -> LabelQueue:
        self._caller.require(Role.REVIEWER, self._project)
        return await self._labelling.open(self._project, self._request_id)

    async def _ask_who(self) -> bool:
        """Update the caller and its roles. False: nobody is logged in any more."""
        try:
            self._caller = await self._who()
        except NotAuthenticated as error:
            self._timer.cancel()
            self._queue = None
            self._shown.clear()
            self._told.set_text(f"{error}. The answers that you gave are kept.")
            with self._shown:
                ui.link("Log in again", self._root)
            return False
        return True

    async def _act(
        self, number: int, work: Callable[[LabelQueue, str], Awaitable[LabelQueue]], *, done: str
    ) -> None:
        """Do ``work`` for the prompt ``number``, and show the next one. A second click on it is ignored."""
        async with self._one_click:
            if number != self._number or not await self._ask_who():
                return
            try:
                queue = await work(await self._opened(), reviewer_of(self._caller, self._name_given))
            except NOT_KEPT as error:
                ui.notify(f"not saved: {reason_of(error)}", type="negative")
                return
            ui.notify(done, type="positive")
            self._draw(queue, queue.next_after(number, self._person))

    async def _publish(self, number: int) -> None:
        values = {name: value() for name, value in self._values.items()}

        async def publish(queue: LabelQueue, person: str) -> LabelQueue:
            output = answer_of(self._labelling.task_of(self._project), values)
            return await self._labelling.answer(queue, number, output, person=person, caller=self._caller)

        await self._act(number, publish, done="published")

    async def _leave_out(self, number: int) -> None:
        async def leave_out(queue: LabelQueue, person: str) -> LabelQueue:
            return await self._labelling.leave_out(queue, number, person=person, caller=self._caller)

        await self._act(number, leave_out, done="noted as out of scope")

    async def _show(self, number: int | None) -> None:
        """Show another prompt. Unsent input for the present one is dropped."""
        if not await self._ask_who() or self._queue is None:
            return
        try:
            queue = await self._opened()
            self._draw(queue, number)
        except NOT_KEPT as error:
            ui.notify(reason_of(error), type="negative")

    def _draw(self, queue: LabelQueue, number: int | None) -> None:
        """Draw a prompt. ``number`` None: draw that all prompts are done."""
        self._queue, self._number, self._values = queue, number or 0, {}
        asked, counts = queue.request.data, queue.counts
        far = f"{counts['answered']} answered of {asked.wanted} wanted, {counts['open']} open"
        far += cost_text(queue.spec, asked.wanted - counts["answered"])
        over = f"; nobody needs them any more: {queue.outcome}" if queue.outcome else ""
        self._told.set_text(f"{', '.join(asked.keywords) or asked.request_id}: {far}{over}")
        self._shown.clear()
        with self._shown:
            if number is None:
                ui.label("All prompts are done; thank you.")
                ui.link("Other requests", f"{self._root}labels")
            else:
                self._draw_item(queue.item(number), number, len(queue.items))

    def _draw_item(self, item: LabelPrompt, number: int, of: int) -> None:
        with ui.element("main").classes("w-full").props(f"data-number={number}"):
            ui.label(f"Prompt {number} of {of}").classes("text-subtitle1")
            for message in item.turns:
                draw_text(message.role, message.content, height="40vh")
            with ui.expansion("What the model answered").classes("w-full"):
                draw_text("Model's answer", item.output, height="30vh")
            for field in fields_of(self._labelling.task_of(self._project)):
                self._values[field.name] = _draw_field(field)
            following = self._queue.next_after(number, self._person) if self._queue else None
            with ui.row().classes("w-full justify-between"):
                ui.button("Publish", on_click=partial(self._publish, number)).mark("publish")
                ui.button("Out of scope", on_click=partial(self._leave_out, number)).props("outline")
                ui.button("Skip", on_click=partial(self._show, following)).props("flat")


def _draw_field(field: FormField) -> Callable[[], Any]:
    """Draw a control and return a function for its value. It starts empty, so that the answer is the person's
    own."""
    name = f"field-{field.name or 'answer'}"
    label = f"{field.name or 'answer'}{'' if field.required else ' (optional)'}"
    if field.kind == "choice":
        shown = {number: str(value) for number, value in enumerate(field.choices)}
        if len(shown) <= FEW_CHOICES:
            ui.label(label).classes("text-caption")
            choice: Any = ui.radio(shown).props(f'inline aria-label="{_attribute(label)}"')
        else:
            choice = ui.select(shown, label=label, with_input=True).classes("w-full")
        choice.mark(name)
        return lambda: None if choice.value is None else field.choices[choice.value]
    if field.kind == "yes_no":
        ui.label(label).classes("text-caption")
        toggle = ui.toggle({True: "yes", False: "no"}, clearable=True).mark(name)
        return lambda: toggle.value
    if field.kind == "number":
        entry: Any = ui.input(label)
    else:
        entry = ui.textarea(f"{label} (JSON)" if field.kind == "json" else label).props("autogrow")
    entry.classes("w-full").mark(name).props(f'hint="{_attribute(field.description)}"')
    return lambda: entry.value


def _attribute(text: str) -> str:
    return text.replace('"', "'").replace("\\", "/").replace("\n", " ")[:200]
