"""The page of one review. It shows one item at a time, and can be used by keyboard alone.

The page does not know which side is which model. A script handles the keys in the browser; ``reviewing``
decides which actions are allowed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from nicegui import ui
from nicegui.events import GenericEventArguments
from tunewheel_contracts.formats.review_assignment import Choice
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role

from tunewheel_console import review_drawing as drawing
from tunewheel_console.page import RELOAD_WHEN_LOGGED_OUT, Who
from tunewheel_console.refusals import NOT_KEPT, reason_of, reviewer_of
from tunewheel_console.reviewing import ItemAnswer, Reviewing, Sitting

EVENT = "review-key"
KEYS = """
if (!window.tunewheelReview) {
  window.tunewheelReview = true;
  const text = () => document.querySelector('[data-text] textarea, textarea[data-text]');
  const send = key => {
    const shown = document.querySelector('[data-number]');
    if (!shown) return;
    emitEvent('review-key', {number: Number(shown.dataset.number), key, text: text()?.value ?? ''});
  };
  document.addEventListener('keydown', event => {
    if (event.repeat || event.isComposing || event.altKey || event.metaKey) return;
    if (event.target.closest('textarea, input')) {
      if (event.key === 'Escape' || (event.key === 'Enter' && event.ctrlKey)) {
        event.preventDefault();
        event.target.blur();
      }
      return;
    }
    if (event.ctrlKey) return;
    if (event.target.closest('button, a') && [' ', 'Enter'].includes(event.key)) return;
    if (event.key === 'c' && text()) {
      event.preventDefault();
      text().focus();
      return;
    }
    if (!document.querySelector(`[data-keys~="${CSS.escape(event.key)}"]`)) return;
    event.preventDefault();
    send(event.key);
  });
  document.addEventListener('click', event => {
    const button = event.target.closest('[data-key]');
    if (button) send(button.dataset.key);
  });
}
"""
"""Attributes that the script uses: ``data-number`` is the number of the shown item, and ``data-keys`` lists
its keys. ``data-text`` marks the field whose text is sent with each message. ``data-key`` is a button's
key. A button sends the same message as its key.

Each message names the item that the page shows. If a key is pressed twice, or before the next item is shown,
the message names an item that the server has left. The server ignores it, so that nobody answers an unseen
item."""
END = 0
"""The number of the page after the last item."""
CHOICES = {"1": Choice.LEFT, "2": Choice.SAME, "3": Choice.RIGHT}
VERDICTS: dict[str, Literal["approved", "rejected"]] = {"a": "approved", "r": "rejected"}


class ReviewPage:
    """One browser tab with one review. The caller's roles are checked again at each key."""

    def __init__(
        self,
        reviewing: Reviewing,
        caller: Caller,
        who: Who,
        *,
        project: str,
        review_id: str,
        name: str | None,
        refresh_seconds: float,
    ) -> None:
        """``name``: the name of the person, if identity is open."""
        self._reviewing = reviewing
        self._caller = caller
        self._who = who
        self._project = project
        self._review_id = review_id
        self._name_given = name
        self._refresh_seconds = refresh_seconds
        self._one_key = asyncio.Lock()
        self._sitting: Sitting | None = None
        self._number = END
        self._is_over = False
        self._reasons: set[str] = set()
        self._verdict: Literal["approved", "rejected"] | None = None

    def build(self, *, csrf: str | None, root: str) -> None:
        """Draw the frame. The first item is drawn once the browser has opened the page's connection."""
        drawing.draw_header(self._caller, csrf=csrf, root=root)
        self._root = root
        self._told = ui.label().props("role=status aria-live=polite tabindex=-1 id=told").mark("told")
        self._bar = ui.linear_progress(0, show_value=False).props('aria-label="share that is answered"')
        self._shown = ui.column().classes("w-full")
        self._client = ui.context.client
        ui.on(EVENT, self._on_key)
        ui.run_javascript(RELOAD_WHEN_LOGGED_OUT)
        ui.run_javascript(KEYS)
        if self._caller.principal is None and not self._name_given:
            with self._shown:
                drawing.draw_name_form()
            return
        self._timer = ui.timer(self._refresh_seconds, self._refresh)

    async def _begin(self) -> None:
        """Open the review. If that fails, show the reason; each refresh tries again."""
        try:
            self._caller.require(Role.REVIEWER, self._project)
            reviewer = reviewer_of(self._caller, self._name_given)
            self._sitting = await self._reviewing.open(self._project, self._review_id, reviewer)
        except NOT_KEPT as error:
            self._told.set_text(reason_of(error))
        else:
            self._draw(self._sitting.first_unanswered or END)

    async def _refresh(self) -> None:
        """Check whether the session, the role or the review has ended."""
        if not await self._ask_who():
            return
        if self._sitting is None:
            await self._begin()
        elif not self._caller.may(Role.REVIEWER, self._project):
            self._end(f"{self._caller.name} may not review {self._project} any more")
        elif self._sitting.is_over and not self._is_over:
            self._draw(END)
        elif self._number == END and self._has_more(self._sitting):
            await self._begin()

    def _has_more(self, sitting: Sitting) -> bool:
        """Return whether a trial has drawn more pairs since the review was opened."""
        asked = sitting.review.comparisons
        return asked is not None and not sitting.missing and asked.items > len(sitting.pairs)

    async def _ask_who(self) -> bool:
        """Update the caller and its roles. False: nobody is logged in any more."""
        try:
            self._caller = await self._who()
        except NotAuthenticated as error:
            self._end(str(error))
            return False
        return True

    def _end(self, reason: str) -> None:
        """Clear the review from the page."""
        self._timer.cancel()
        answered = self._sitting.answered if self._sitting else 0
        self._sitting = None
        self._shown.clear()
        self._told.set_text(
            f"{reason}. Your {answered} answers are kept; you go on at the first missing one."
        )
        with self._shown:
            ui.link("Log in again", self._root)

    async def _on_key(self, event: GenericEventArguments) -> None:
        """Carry out a key's action, one key after another. A key for an item that is not shown is ignored."""
        said: dict[str, Any] = event.args if isinstance(event.args, dict) else {}
        key, text = str(said.get("key", "")), str(said.get("text", ""))
        async with self._one_key:
            sitting = self._sitting
            if sitting is None or said.get("number") != self._number or not await self._ask_who():
                return
            try:
                self._caller.require(Role.REVIEWER, self._project)
                if self._number == END:
                    await self._at_end(sitting, key, text)
                else:
                    await self._at_item(sitting, key, text)
            except NOT_KEPT as error:
                ui.notify(f"not saved: {reason_of(error)}", type="negative")
                if sitting.is_over:
                    self._draw(END)

    async def _at_item(self, sitting: Sitting, key: str, text: str) -> None:
        if key in CHOICES:
            await self._answer(sitting, CHOICES[key], text)
            self._draw(self._after(sitting))
        elif key in drawing.REASONS and sitting.review.comparisons is None:
            self._reasons ^= {drawing.REASONS[key]}
            drawing.press_reasons(self._shown, self._reasons)
        elif key == "e":
            self._expected.set_text(sitting.pair(self._number).item.expected)
            self._expected_box.set_visibility(not self._expected_box.visible)
        elif key in ("ArrowLeft", "ArrowRight", "Enter") and await self._keep_changes(sitting, text):
            before = [number for number in sitting.numbers if number < self._number]
            after = [number for number in sitting.numbers if number > self._number]
            if key == "ArrowLeft":
                self._draw(before[-1] if before else self._number)
            else:
                self._draw(after[0] if after else END)

    async def _answer(self, sitting: Sitting, choice: Choice, text: str) -> None:
        reasons = tuple(one for one in drawing.REASONS.values() if one in self._reasons)
        answer = ItemAnswer(choice, reasons, text if text.strip() else None)
        await self._reviewing.answer(sitting, self._number, answer, self._caller)

    async def _keep_changes(self, sitting: Sitting, text: str) -> bool:
        """Save changed tags or text of an earlier answer. False: they cannot be saved, because no choice has
        been made."""
        answer = sitting.answer_to(self._number)
        if answer is not None:
            await self._answer(sitting, answer.choice, text)
            return True
        if not self._reasons and not text.strip():
            return True
        ui.notify("choose 1, 2 or 3 first: tags and correction are kept with it", type="warning")
        return False

    def _after(self, sitting: Sitting) -> int:
        """Return the next item after the present one; after the last, the first unanswered one, or
        ``END``. Of a trial, the next pair that nobody has compared."""
        numbers = sitting.missing if sitting.review.comparisons else sitting.numbers
        after = [number for number in numbers if number > self._number]
        return after[0] if after else sitting.first_unanswered or END

    async def _at_end(self, sitting: Sitting, key: str, text: str) -> None:
        if key == "ArrowLeft":
            self._draw(sitting.numbers[-1])
        elif key in VERDICTS:
            self._verdict = VERDICTS[key]
            drawing.press_verdict(self._shown, key)
        elif key == "Enter" and sitting.first_unanswered:
            self._draw(sitting.first_unanswered)
        elif key == "Enter" and self._verdict is not None:
            await self._reviewing.submit(sitting, self._verdict, text, self._caller)
            self._draw(END)
        elif key == "Enter":
            ui.notify("choose a or r first", type="warning")

    def _draw(self, number: int) -> None:
        """Draw an item, the page after the last one, or the result once the review is over."""
        sitting = self._sitting
        assert sitting is not None
        self._number, self._is_over = number, sitting.is_over
        self._shown.clear()
        if self._is_over:
            self._number = END
            announced = drawing.told_at_the_end(sitting)
            with self._shown:
                drawing.draw_revealed(sitting, root=self._root)
        elif number == END:
            self._verdict = None
            announced = f"{sitting.answered} of {len(sitting.numbers)} answered"
            with self._shown:
                drawing.draw_end(sitting)
        else:
            answer = sitting.answer_to(number)
            self._reasons = set(answer.reasons) if answer else set()
            announced = f"Item {number} of {len(sitting.pairs)}; {sitting.answered} answered"
            with self._shown:
                self._expected_box, self._expected = drawing.draw_item(sitting, number)
                drawing.press_reasons(self._shown, self._reasons)
        self._told.set_text(announced)
        self._bar.set_value(min(1, sitting.answered / max(1, len(sitting.numbers))))
        with self._client:
            ui.run_javascript("setTimeout(() => document.getElementById('told')?.focus())")
