"""Alpaca's instructions: ``instruction``, ``input``, ``output``; also Self-Instruct's, with ``instances``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Record, Unfit, kept
from tunewheel_cli.publishing.formats.pairs import ANSWERS, answer_of, key_of


def fits(record: Record) -> bool:
    answered = isinstance(record.get("instances"), list) or key_of(record, ANSWERS) is not None
    return isinstance(record.get("instruction"), str) and answered


def examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    if isinstance(record.get("system"), str) and record["system"].strip():
        left.leave_prompt(record["system"])
    instances = record.get("instances")
    for place, one in enumerate(instances if isinstance(instances, list) else [record]):
        if not isinstance(one, Mapping):
            raise Unfit(f"instances.{place}", "is no object; give its input and output")
        answer = key_of(one, ANSWERS)
        if answer is None:
            raise Unfit("output", "is missing; add it")
        yield {
            **_question(record, one.get("input") or record.get("context")),
            "output": answer_of(one[answer], answer, left),
            **kept(record),
        }


def _question(record: Record, given: Any) -> Fields:
    parts = [text for text in (record.get("instruction"), given) if isinstance(text, str) and text.strip()]
    before = [
        {"role": role, "content": text}
        for pair in record.get("history") or ()
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]
    return {"input": "\n\n".join(parts)} | ({"messages": before} if before else {})


ALPACA = Form("alpaca", "Alpaca (instruction)", frozenset({"instruction", "input", "output"}), fits, examples)
