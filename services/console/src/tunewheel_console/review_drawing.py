"""Draws the parts of a review's page. Only ``draw_revealed``, for a reviewer who is done, knows the
candidate's side."""

from __future__ import annotations

from nicegui import ui
from nicegui.element import Element
from tunewheel_contracts.formats.review_assignment import Choice
from tunewheel_runtime.identity.roles import Caller

from tunewheel_console.page import draw_logout
from tunewheel_console.reviewing import CORRECTED_CHARACTERS, ItemAnswer, Sitting

REASONS = {
    "f": "wrong-facts",
    "i": "invented",
    "m": "incomplete",
    "o": "wrong-format",
    "t": "tone",
    "s": "unsafe",
}
"""By key, the tag that gives a reason."""
PAIR_KEYS = "1 2 3 ArrowLeft ArrowRight Enter"
ITEM_KEYS = f"{PAIR_KEYS} e {' '.join(REASONS)}"
END_KEYS = "a r ArrowLeft Enter"
_TEXT = (
    "white-space: pre-wrap; overflow-wrap: anywhere; overflow: auto; border: 1px solid #8888; padding: .5rem"
)


def draw_header(caller: Caller, *, csrf: str | None, root: str) -> None:
    ui.query(".nicegui-content").classes("w-full")
    with ui.header().classes("items-center"):
        ui.link("Tunewheel", root).classes("text-h6 text-white")
        ui.link("Reviews", f"{root}reviews").classes("text-white")
        ui.link("Labels", f"{root}labels").classes("text-white")
        ui.space()
        ui.label(caller.name or "anybody: identity is open").mark("caller")
        if csrf is not None:
            draw_logout(csrf, root)


def draw_name_form() -> None:
    """Ask for the reviewer's name, if identity is open. The browser then opens this page again with the
    name."""
    with ui.element("form").props("method=get"):
        ui.label("Identity is open: say who you are.")
        field = ui.element("input").props('name=reviewer required autofocus aria-label="your name"')
        field.style("border: 1px solid; padding: .25rem")
        ui.button("Begin").props("type=submit")


def draw_item(sitting: Sitting, number: int) -> tuple[Element, ui.label]:
    """Draw one item. Return the hidden box of the expert's answer, and the label for its text."""
    pair, chosen = sitting.pair(number), sitting.answer_to(number)
    is_full = sitting.review.comparisons is None  # a trial needs no reasons, and has no expert's answer
    keys = ITEM_KEYS if is_full else PAIR_KEYS
    with ui.element("main").props(f'data-number={number} data-keys="{keys}"').classes("w-full"):
        for message in pair.item.messages:
            draw_text(message.role, message.content, height="30vh")
        with ui.element("div").classes("w-full grid gap-4 grid-cols-1 md:grid-cols-2"):
            for side, answer in (("Left answer", pair.left), ("Right answer", pair.right)):
                draw_text(side, answer, height="40vh")
        box, expected = draw_text("Expert's answer", "", height="30vh")
        box.set_visibility(False)
        with ui.row().classes("w-full justify-center").props('role=group aria-label="which is better"'):
            _key("1", "Left is better", pressed=chosen is not None and chosen.choice is Choice.LEFT)
            _key("2", "Same", pressed=chosen is not None and chosen.choice is Choice.SAME)
            _key("3", "Right is better", pressed=chosen is not None and chosen.choice is Choice.RIGHT)
        if is_full:
            _draw_why(chosen)
        with ui.row().classes("w-full justify-between"):
            _key("ArrowLeft", "back", small=True, shown="←")
            if is_full:
                _key("e", "show or hide the expert's answer", small=True)
            _key("ArrowRight", "next", small=True, shown="→ or Enter")
    return box, expected


def _draw_why(chosen: ItemAnswer | None) -> None:
    with ui.row().classes("w-full justify-center").props('role=group aria-label="why"'):
        for key, reason in REASONS.items():
            _key(key, reason.replace("-", " "), small=True)
    corrected = (chosen.corrected if chosen else None) or ""
    _field("c  a better answer, in your words; Esc leaves the field", corrected)


def draw_end(sitting: Sitting) -> None:
    """Draw the page after the last item: the missing answers, or the question for a verdict."""
    is_full = sitting.review.comparisons is None
    keys = END_KEYS if is_full else "ArrowLeft Enter" if sitting.missing else "ArrowLeft"
    with ui.element("main").props(f'data-number=0 data-keys="{keys}"').classes("w-full"):
        if sitting.missing:
            ui.label(f"Not answered yet: {', '.join(map(str, sitting.missing))}")
            _key("Enter", "go to the first of them")
        elif not is_full:
            ui.label(
                f"All {len(sitting.numbers)} pairs are compared; thank you. Each answer counts already. More "
                "pairs may come while the trial runs, and are shown here."
            )
        else:
            chosen = [sitting.answer_to(n) for n in sitting.numbers]
            same = sum(one is not None and one.choice is Choice.SAME for one in chosen)
            corrected = sum(one is not None and one.corrected is not None for one in chosen)
            ui.label(
                f"You preferred one answer {len(chosen) - same} times, found both the same {same} times, and "
                f"wrote {corrected} better ones. You are told which model was which once you have submitted."
            )
            ui.label(
                "If you approve, the answers decide: the version is rejected all the same if they miss the "
                "project's review.min_preference or, without it, prefer the other model. To outrank a missed "
                "criterion, they must prefer this version."
            )
            with ui.row().props('role=group aria-label="verdict"'):
                _key("a", "Approve: serve this version if the answers do not speak against it")
                _key("r", "Reject: this version must not serve, whatever the answers say; final")
            _field("c  comment; Esc leaves the field", "")
            _key("Enter", "submit")
        _key("ArrowLeft", "back to the last item", small=True, shown="←")


def told_at_the_end(sitting: Sitting) -> str:
    mine = sitting.review.submission_of(sitting.reviewer)
    own = f"You {mine.verdict} this version; thank you." if mine else "You did not submit."
    own = own if sitting.review.comparisons is None else "The trial is over."
    outcome = sitting.review.outcome
    return f"{own} The review has ended: {outcome}." if outcome else f"{own} Others may still be answering."


def draw_revealed(sitting: Sitting, *, root: str) -> None:
    """Show a person who is done which model was which."""
    said, found = sitting.review.preferences_of(sitting.reviewer), sitting.set
    with ui.element("main").classes("w-full").mark("revealed"):
        ui.label(
            f"The candidate was {found.candidate_id}, compared with {found.other_id}. You found it better "
            f"{said['better']} times, the same {said['same']} times, worse {said['worse']} times."
        )
        ui.link("Other reviews", f"{root}reviews")


def press_reasons(shown: Element, reasons: set[str]) -> None:
    """Mark the given tags."""
    for key, reason in REASONS.items():
        _press(shown, key, pressed=reason in reasons)


def press_verdict(shown: Element, key: str) -> None:
    """Mark the chosen verdict."""
    for one in ("a", "r"):
        _press(shown, one, pressed=one == key)


def _press(shown: Element, key: str, *, pressed: bool) -> None:
    for button in shown.descendants():
        if isinstance(button, ui.button) and button.props.get("data-key") == key:
            _mark_pressed(button, pressed=pressed)


def _mark_pressed(button: ui.button, *, pressed: bool) -> None:
    button.props(f"aria-pressed={'true' if pressed else 'false'}")
    button.props(remove="outline") if pressed else button.props("outline")


def _key(key: str, label: str, *, pressed: bool = False, small: bool = False, shown: str = "") -> None:
    button = ui.button(f"{shown or key}  {label}").props(f'data-key="{key}" no-caps')
    button.props("size=sm" if small else "")
    _mark_pressed(button, pressed=pressed)


def draw_text(name: str, text: str, *, height: str) -> tuple[Element, ui.label]:
    """Draw a text of a person or a model in a box that scrolls. Markup in it is shown as text."""
    with ui.element("section").classes("w-full") as box:
        ui.label(name).classes("text-caption text-grey-8")
        label = ui.label(text).style(
            f"{_TEXT}; max-height: {height}; border: 1px solid #8888; padding: .5rem"
        )
        label.props(f'tabindex=0 role=region aria-label="{name}"')
    return box, label


def _field(label: str, text: str) -> None:
    field = ui.textarea(label, value=text).classes("w-full").mark("text")
    field.props(f"data-text autogrow debounce=300 maxlength={CORRECTED_CHARACTERS}")
