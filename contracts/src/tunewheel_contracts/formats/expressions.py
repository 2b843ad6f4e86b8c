"""JMESPath expressions, by which a project's sources read the records of other systems.

Source: the JMESPath specification (https://jmespath.org/specification.html). Four functions are our own: the
language cannot tell a customer's messages from an agent's, or read a time:

- ``conversation(messages, &author, customer, &text)``: an object with the ``question`` (the customer's last
  messages), the ``answer`` (the messages of others after it; null while the customer waits) and the
  ``history`` before both.
- ``text(value)``: the text of a list of parts, as chat messages have it, or of an Atlassian document.
- ``time(value)``: a time from seconds, milliseconds or microseconds since 1970, or from another spelling.
- ``parse_json(text)``: the value of a text that holds JSON; any other text stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, cast

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, Field

MOST_COPIES = 100
"""How many times an expression may copy what it reads. Nested lists would otherwise grow without bound."""
MOST_TURNS = 200
MOST_PARTS = 100_000
MOST_TICKS = 1e20
"""Nanoseconds from 1970 to the year 5138."""
_BLOCKS = frozenset({"paragraph", "heading", "listItem", "codeBlock", "blockquote", "tableRow", "hardBreak"})
"""The nodes of an Atlassian document that begin a line."""
_SHORT_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")


class Unreadable(ValueError):
    """An expression does not fit the record: its text says why, and quotes nothing of the record."""


class _Functions(functions.Functions):
    @functions.signature({"types": []}, {"types": ["expref"]}, {"types": []}, {"types": ["expref"]})
    def _func_conversation(self, messages: Any, author: Any, customer: Any, text: Any) -> dict[str, Any]:
        turns: list[dict[str, str]] = []
        for message in cast("list[Any]", messages if isinstance(messages, list) else [])[-MOST_TURNS:]:
            said = plain(text.visit(text.expression, message)).strip()
            who = author.visit(author.expression, message)
            if not said or who in ("system", "developer", "tool"):
                continue
            role = "user" if who == customer else "assistant"
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += f"\n\n{said}"
            else:
                turns.append({"role": role, "content": said})
        answer = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
        question = turns.pop()["content"] if turns else None
        return {"question": question, "answer": answer, "history": turns}

    @functions.signature({"types": []})
    def _func_text(self, value: Any) -> str | None:
        return plain(value) or None

    @functions.signature({"types": []})
    def _func_time(self, value: Any) -> str | None:
        return _time(value)

    @functions.signature({"types": []})
    def _func_parse_json(self, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            return value


_OPTIONS = jmespath.Options(custom_functions=_Functions())


@lru_cache(maxsize=4_096)
def _compiled(expression: str) -> Any:
    return jmespath.compile(expression)


def _is_expression(value: str) -> str:
    try:
        tree = _compiled(value).parsed
    except (JMESPathError, RecursionError) as error:
        raise ValueError(f"is no JMESPath expression: {' '.join(str(error).split())}") from None
    copies = 1
    for node in _nodes(tree):
        copies *= max(len(node["children"]), 1) if node["type"].startswith("multi_select") else 1
        if node["type"] == "function_expression" and node["value"] not in _Functions.FUNCTION_TABLE:
            raise ValueError(f"calls {node['value']}, which is no function of JMESPath; see docs/connect.md")
    if copies > MOST_COPIES:
        raise ValueError(
            f"copies its input {copies} times, {MOST_COPIES} are allowed; make fewer lists of lists"
        )
    return value


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in node["children"] if isinstance(child, dict)]


Expression = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_is_expression)]
"""A JMESPath expression: where in a record something stands, or a constant in single quotes."""


def search(expression: str, record: Any) -> Any:
    """Return what ``expression`` finds in ``record``; None: nothing.

    Raises:
        Unreadable: a function of the expression cannot take what it found.
    """
    try:
        return _compiled(expression).search(record, _OPTIONS)
    except JMESPathError as error:
        raise Unreadable(_without_values(error)) from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Unreadable(f"cannot be computed ({type(error).__name__})") from error


def _without_values(error: JMESPathError) -> str:
    name, found, wanted = (
        getattr(error, part, None) for part in ("function_name", "actual_type", "expected_types")
    )
    if name is None:
        return f"cannot be computed ({type(error).__name__})"
    return f"gives {name}() a value of the type {found}; it takes {', '.join(wanted or ())}"


def plain(value: Any) -> str:
    """Return the text of ``value``: a text, the parts of a chat message, or an Atlassian document."""
    if isinstance(value, str):
        return value
    # Each line as its parts: to add to a text copies it, which takes seconds where a line has many parts.
    lines, waiting, count = [list[str]()], [value], 0
    while waiting and count < MOST_PARTS:
        node, count = waiting.pop(), count + 1
        if isinstance(node, list):
            waiting += reversed(cast("list[Any]", node))
        elif isinstance(node, dict):
            node = cast("dict[str, Any]", node)
            if node.get("type") in _BLOCKS and lines[-1]:
                lines.append([])
            said = node.get("text")
            lines[-1] += [said] if isinstance(said, str) and said else []
            waiting.append(node.get("content"))
        elif isinstance(node, str) and node:
            lines[-1].append(node)
    return "\n".join(map("".join, lines)).strip()


def _time(value: Any) -> str | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        if not isinstance(value, str):
            raise Unreadable("gives time() a value that is no time") from None
        spelt = _SHORT_OFFSET.sub(r"\1:\2", value.strip().replace(" ", "T", 1).replace(" ", ""))
        try:
            date = datetime.fromisoformat(spelt)
        except ValueError:
            raise Unreadable("gives time() a text that is no time") from None
    else:
        if not abs(number) < MOST_TICKS:
            raise Unreadable("gives time() a number that is no time")
        while abs(number) > 1e11:  # 1e11 seconds are in the year 5138: these are milliseconds, or finer
            number /= 1_000
        date = datetime.fromtimestamp(number, UTC)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).isoformat()
