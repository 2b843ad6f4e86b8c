"""Chat JSON: ``messages`` of {role, content}, as OpenAI's fine-tuning and most trainers take it."""

from __future__ import annotations

from collections.abc import Iterator

from tunewheel_cli.publishing.formats.conversations import examples_of, turns_of
from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Record, kept

TOOLS = "definitions of tools"


def fits(record: Record) -> bool:
    return isinstance(record.get("messages"), list) and "input" not in record


def examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    left[TOOLS] += bool(record.get("tools") or record.get("functions"))
    for found in examples_of(turns_of(record.get("messages"), "messages", left), "messages", left):
        yield found | kept(record)


CHAT = Form("chat", "chat JSON (messages)", frozenset({"messages"}), fits, examples)
