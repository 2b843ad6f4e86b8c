"""Items of reviews and of requests for labels on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunewheel_cli.texts import flat, printable


def print_item(item: Any, texts: Mapping[str, str | None]) -> None:
    """Print an item: the conversation, then ``texts`` under their headings."""
    print(f"item {item.number} of {item.of}")
    conversation = [(message.role, message.content) for message in item.messages]
    for name, text in (*conversation, *texts.items()):
        print(f"--- {name}\n{printable(text or '')}")


def print_field(field: Any) -> None:
    """Print a field of an answer: its name, what it takes, and whether it may be left out."""
    kind = field.kind.replace("_", " or ")
    if field.choices:
        kind = "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in field.choices)
    print(printable(f"{field.name or 'the whole answer'}: {kind}{'' if field.required else ' (optional)'}"))


def labels_so_far(progress: Any) -> str:
    """Return the progress of a request for labels in words."""
    following = getattr(progress, "next", None)
    return (
        f"{progress.answered} answered of {progress.wanted} wanted, {progress.prompts} prompts"
        + (f", {progress.out_of_scope} out of scope" if progress.out_of_scope else "")
        + (f", about {progress.minutes:g} minutes" if progress.minutes and not progress.outcome else "")
        + (f", {progress.dollars:g} dollars" if progress.dollars and not progress.outcome else "")
        + (f" (ended: {flat(progress.outcome)})" if progress.outcome else "")
        + (f"; next is {following}" if following else "")
    )


def review_so_far(progress: Any) -> str:
    """Return a person's progress in a review in words; after submission, which model was which."""
    count = f"{progress.answered} of {progress.items} answered"
    if progress.state == "waiting":
        done = "submit with approve or reject" if progress.takes_verdict else "none is left now"
        return f"{count}; " + (f"next is {progress.next}" if progress.next else done)
    found = progress.revealed
    said = found.preferences
    state = f"ended: {flat(progress.outcome)}" if progress.outcome else f"{progress.verdict} by you"
    return (
        f"{count}; {state}. The candidate was {found.candidate}, compared with {found.other}: better "
        f"{said.get('better', 0)}, same {said.get('same', 0)}, worse {said.get('worse', 0)}"
    )
