"""Preferences: ``prompt``, ``chosen``, ``rejected``, as texts, messages or whole transcripts (as Anthropic's
hh-rlhf), and OpenAI's ``input``, ``preferred_output``, ``non_preferred_output``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunewheel_cli.publishing.formats.chat import TOOLS
from tunewheel_cli.publishing.formats.conversations import asked, question_of, turns_of
from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Record, Unfit, kept
from tunewheel_cli.publishing.formats.pairs import QUESTIONS, answer_of, key_of, prompt_of

_SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_PROMPTS = (*QUESTIONS, "instruction", "conversations")


def fits(record: Record) -> bool:
    return "chosen" in record and "rejected" in record


def examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    better, worse = (_messages(_given(record, name)) for name in ("chosen", "rejected"))
    key = key_of(record, _PROMPTS)
    whole = isinstance(better, list) and len(better) > 1
    if whole and isinstance(better, list):  # the answers come with their conversation
        question = question_of(asked(turns_of(better[:-1], "chosen", left), left), "chosen")
    elif key is not None:
        question = prompt_of(_messages(record[key]), key, left)
    else:
        raise Unfit("prompt", "is missing; add it")
    answers = _pair(answer_of(better, "chosen", left), answer_of(worse, "rejected", left), left)
    yield question | answers | kept(record)


def _pair(better: Any, worse: Any, left: LeftOut) -> Fields:
    if better == worse:
        left["answers to avoid that equal the right one"] += 1
        return {"output": better}
    return {"output": better, "rejected_output": worse}


def _given(record: Record, name: str) -> Any:
    if record.get(name) is None:
        raise Unfit(name, "is missing; add it")
    return record[name]


def _messages(value: Any) -> Any:
    """Return a transcript as messages, a message as a list, and anything else as it is."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, str) and _SPOKEN.match(value):
        _, *parts = _SPOKEN.split(value)
        return [{"from": who, "value": text} for who, text in zip(parts[::2], parts[1::2], strict=True)]
    return value


def fits_openai(record: Record) -> bool:
    return isinstance(record.get("input"), Mapping) and "preferred_output" in record


def openai_examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    given = _given(record, "input")
    if not isinstance(given, Mapping):
        raise Unfit("input", "is no object with messages; correct it")
    left[TOOLS] += bool(given.get("tools"))
    spoken = asked(turns_of(given.get("messages"), "input.messages", left), left)
    yield {
        **question_of(spoken, "input.messages"),
        **_pair(
            answer_of(_given(record, "preferred_output"), "preferred_output", left),
            answer_of(_given(record, "non_preferred_output"), "non_preferred_output", left),
            left,
        ),
        **kept(record),
    }


PREFERENCE = Form(
    "preferences",
    "preferences (chosen, rejected)",
    frozenset({"prompt", "chosen", "rejected"}),
    fits,
    examples,
)
OPENAI_PREFERENCE = Form(
    "openai-preferences",
    "OpenAI's preferences (preferred_output)",
    frozenset({"preferred_output", "non_preferred_output"}),
    fits_openai,
    openai_examples,
)
