"""Checks answers by output rules: sections, tables, patterns, allowed values, citations.

Patterns come from people, and answers may be hostile. So patterns run in polars' engine (Rust's ``regex``),
which is linear in the text for every pattern. See ``tunewheel_contracts.formats.output_rules``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.output_rules import (
    AllowedValuesRule,
    CitedRule,
    OutputRule,
    PatternRule,
    SectionsRule,
    TableRule,
)

from tunewheel_outputs.parsing import Unparsed, parse

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(\S.*)")
_FENCE = ("```", "~~~")


def rule_complaints(
    rules: Sequence[OutputRule], answers: Sequence[str], asked: Sequence[str]
) -> list[list[str | None]]:
    """Return the complaint of each rule about each answer, shape (rules, answers); None: the answer follows
    the rule.

    ``asked``: the conversation before each answer, as one text. An answer without the rule's field follows
    the rule; the schema decides whether the field is required. Raises InvalidSpec: the engine does not
    support a pattern.
    """
    parsed = [_parsed(text) for text in answers]
    found: list[list[str | None]] = []
    for number, rule in enumerate(rules):
        texts = [_texts(text, value, rule) for text, value in zip(answers, parsed, strict=True)]
        found.append(_complaints(rule, texts, asked, field=f"task.output_rules.{number}.pattern"))
    return found


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except Unparsed:
        return None


def _texts(text: str, value: Any, rule: OutputRule) -> list[str]:
    """Return the texts that the rule checks: none if the field is absent, several for a list."""
    if rule.field is None:
        return [text]
    for part in rule.field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    items: list[Any] = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in items if item is not None]


def _complaints(
    rule: OutputRule, texts: list[list[str]], asked: Sequence[str], *, field: str
) -> list[str | None]:
    match rule:
        case SectionsRule():
            return [_first(_sections_complaint(text, rule) for text in several) for several in texts]
        case TableRule():
            return [_first(_table_complaint(text, rule.columns) for text in several) for several in texts]
        case AllowedValuesRule():
            allowed = set(rule.values)
            return ["not an allowed value" if set(several) - allowed else None for several in texts]
        case PatternRule():
            return ["no match" if not all(found) else None for found in _matching(rule.pattern, texts, field)]
        case CitedRule():
            cited = _found(rule.pattern, texts, field)
            pairs = zip(cited, asked, strict=True)
            return [
                "not in the input" if any(c not in question for c in all_) else None
                for all_, question in pairs
            ]


def _first(complaints: Any) -> str | None:
    return next((complaint for complaint in complaints if complaint is not None), None)


def _matching(pattern: str, texts: list[list[str]], field: str) -> list[list[bool]]:
    flat = _run(
        pl.Series([t for several in texts for t in several], dtype=pl.String), pattern, field, find=False
    )
    return _nested(flat, texts)


def _found(pattern: str, texts: list[list[str]], field: str) -> list[list[str]]:
    flat = _run(
        pl.Series([t for several in texts for t in several], dtype=pl.String), pattern, field, find=True
    )
    return [[match for matches in several for match in matches] for several in _nested(flat, texts)]


def _run(texts: pl.Series, pattern: str, field: str, *, find: bool) -> list[Any]:
    try:
        pl.Series([""]).str.contains(pattern)  # With an empty series a wrong pattern would raise no error.
        return (texts.str.extract_all(pattern) if find else texts.str.contains(pattern)).to_list()
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[-1]
        raise InvalidSpec(
            field=field, reason=f"is not valid for Rust's regex crate ({first}); correct it"
        ) from error


def _nested(flat: list[Any], texts: list[list[str]]) -> list[list[Any]]:
    values = iter(flat)
    return [[next(values) for _ in several] for several in texts]


def _sections_complaint(text: str, rule: SectionsRule) -> str | None:
    found = _sections(text)
    names = [name for name, _ in found]
    place = -1
    for heading in rule.headings:
        wanted = heading.casefold()
        if wanted not in names:
            return f"no section {heading!r}"
        position = names.index(wanted)
        if not found[position][1]:
            return f"section {heading!r} is empty"
        if rule.ordered and position < place:
            return f"section {heading!r} is out of order"
        place = position
    return None


def _sections(text: str) -> list[tuple[str, bool]]:
    """Return the headings of a Markdown text, case folded, each with whether there is content below it."""
    found: list[tuple[str, int, bool]] = []
    fenced = False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith(_FENCE)
        match = None if fenced else _HEADING.match(line)
        level = len(match.group(1)) if match else 7
        if line.strip() and found and level > found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1], True)
        if match:
            name = match.group(2).rstrip("# \t").rstrip(":").strip("*_ ").casefold()
            found.append((name, level, False))
    return [(name, filled) for name, _, filled in found]


def _table_complaint(text: str, columns: Sequence[str]) -> str | None:
    wanted = [column.casefold() for column in columns]
    lines = text.split("\n")
    tables = 0
    for head, rule, row in zip(lines, lines[1:], [*lines[2:], ""], strict=False):
        marks = _cells(rule)
        if "|" not in head or not marks or not all(m and set(m) <= {"-", ":"} for m in marks):
            continue
        tables += 1
        missing = [column for column in wanted if column not in [cell.casefold() for cell in _cells(head)]]
        if not missing and "|" in row:
            return None
    return "no table" if not tables else "no table with these columns and a row"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line or "-" in line else []
