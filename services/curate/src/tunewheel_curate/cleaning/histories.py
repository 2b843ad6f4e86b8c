"""Earlier turns of a thread, cleaned like the question they led to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tunewheel_contracts.identity import canonical_json

from tunewheel_curate.cleaning.normalization import normalize_text

Turn = dict[str, str]
ROLES = ("user", "assistant")


def turns_of(history: str | None) -> list[Turn]:
    """Return the turns in a record's ``history`` column, oldest first."""
    turns: list[Turn] = json.loads(history) if history else []
    return turns


def cleaned_history(history: str | None, cuts: Mapping[str, Callable[[str], str]]) -> str | None:
    """Normalise the turns, apply ``cuts`` to the user's turns, and leave out empty turns and unknown roles.

    Assistant turns before the first user turn are left out: chat templates require that the user begins.
    """
    turns: list[Turn] = []
    for turn in turns_of(history):
        text = normalize_text(turn["content"])
        for cut in cuts.values() if turn["role"] == "user" else ():
            text = cut(text)
        if text and turn["role"] in ROLES and (turns or turn["role"] == "user"):
            turns.append({"role": turn["role"], "content": text})
    return canonical_json(turns).decode() if turns else None
