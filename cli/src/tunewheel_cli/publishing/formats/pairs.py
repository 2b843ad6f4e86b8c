"""Pairs: two keys or columns of usual names: ``prompt`` and ``completion``, or ``Frage`` and ``Antwort``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunewheel_cli.publishing.formats.conversations import asked, question_of, turns_of
from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Record, Unfit, kept, leave_out

QUESTIONS = ("input", "prompt", "question", "query", "frage", "anfrage", "context")
ANSWERS = ("output", "completion", "response", "answer", "antwort", "target", "reply")


def plain(name: str) -> str:
    """Return a column's name in lower case, with one kind of separator."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def key_of(record: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the key that is called like the first of ``names`` that there is."""
    found = {plain(key): key for key in reversed([*record])}
    return next((found[name] for name in names if name in found), None)


def fits(record: Record) -> bool:
    return key_of(record, QUESTIONS) is not None and key_of(record, ANSWERS) is not None


def examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    question, answer = key_of(record, QUESTIONS), key_of(record, ANSWERS)
    if question is None or answer is None:
        name, names = ("output", ANSWERS) if question else ("input", QUESTIONS)
        raise Unfit(name, f"is missing; add it, under one of the names {', '.join(names)}")
    if record.get("label") is False and "completion" in record:
        raise Unfit("label", "is false: an answer to avoid needs a right one beside it; give both as a pair")
    context = key_of(record, ("context", "passage", "kontext"))
    found = prompt_of(record[question], question, left)
    if context is not None and context != question and isinstance(found["input"], str) and record[context]:
        found["input"] = f"{record[context]}\n\n{found['input']}"
    found |= {"output": answer_of(record[answer], answer, left)}
    if isinstance(record.get("messages"), list):
        found["messages"] = record["messages"]
    if record.get("rejected_output"):
        found["rejected_output"] = record["rejected_output"]
    leave_out(left, record, (question, answer, str(context), "messages", "rejected_output"))
    yield found | kept(record)


def prompt_of(value: Any, field: str, left: LeftOut) -> Fields:
    """Return the question of a text, or of the messages of a conversation. Raises Unfit."""
    if isinstance(value, list):
        return question_of(asked(turns_of(value, field, left), left), field)
    return {"input": value}


def answer_of(value: Any, field: str, left: LeftOut) -> Any:
    """Return an answer: as it stands, or the text of the last message. Raises Unfit."""
    if isinstance(value, list):
        turns = [turn for turn in turns_of(value, field, left) if turn.role == "assistant"]
        if not turns:
            raise Unfit(field, "holds no message of the assistant")
        return turns[-1].text
    if isinstance(value, bool | int | float):
        return str(value)
    return value


PAIR = Form("pairs", "question and answer", frozenset({*QUESTIONS, *ANSWERS}), fits, examples)
