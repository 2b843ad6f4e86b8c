"""Says which column of a table, or key of JSON, is the question, and which are the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewheel_cli.surveying.shape import LABEL_NAMES, Values, best_label, plain

QUESTIONS = (
    "question", "frage", "anfrage", "query", "prompt", "input", "text", "utterance", "body", "message",
    "nachricht", "description", "beschreibung", "content", "inhalt", "full_text", "review", "comment",
    "summary", "subject", "betreff", "title", "titel",
)  # fmt: skip
"""Names of questions, the more usual ones first."""
ANSWERS = (
    "answer", "antwort", "reply", "response", "completion", "output", "target", "resolution", "solution",
    "losung", "loesung",
)  # fmt: skip
GROUPS = (
    "group", "customer", "customer_id", "kunde", "kunden_id", "kundennummer", "user", "user_id", "account",
    "account_id", "thread", "thread_id", "conversation_id", "session_id", "email",
)  # fmt: skip
_IDS = re.compile(r"(^|_)(id|ids|nr|no|number|uuid|key|index|url)$")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
FILLED = 0.5
"""The share of the records that a question must have."""
CONTRADICTING = 0.1
SPOKEN = 12
"""Characters of a text on average, at least."""


@dataclass(slots=True)
class Column:
    name: str
    filled: int = 0
    texts: int = 0
    characters: int = 0
    structured: int = 0
    dates: int = 0
    numbers: int = 0
    distinct: set[int] = field(default_factory=set)
    values: Values = field(default_factory=Values)

    def add(self, value: Any) -> None:
        if value is None or value == "":
            return
        self.filled += 1
        if isinstance(value, Mapping | list):
            self.structured += 1
            return
        text = str(value)
        self.texts += isinstance(value, str)
        self.characters += len(text)
        self.dates += bool(_DATE.match(text))
        self.numbers += text.replace(".", "", 1).lstrip("-").isdigit()
        self.distinct.add(hash(text))
        self.values.add(text)

    @property
    def plain(self) -> str:
        return plain(self.name)

    @property
    def is_text(self) -> bool:
        spoken = self.texts and self.characters / self.filled >= SPOKEN
        return bool(spoken) and 2 * self.dates < self.filled and 2 * self.numbers < self.filled

    @property
    def is_label(self) -> bool:
        if not self.values.labels or 2 * self.dates > self.filled or _IDS.search(self.plain):
            return False
        named = any(one in LABEL_NAMES for one in self.plain.split("_"))
        return named or 2 * self.numbers < self.filled


@dataclass(frozen=True, slots=True)
class Reading:
    """How the records of a file become examples."""

    maps: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Columns that could be the answer instead."""


def read_columns(records: Sequence[Mapping[str, Any]]) -> Reading | None:
    """Return the maps that make examples of ``records``; None: no column looks like a question, or none like
    an answer."""
    columns: dict[str, Column] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, Column(name)).add(value)
    usable = {name: one for name, one in columns.items() if one.filled}
    question = _question([*usable.values()], len(records))
    if question is None:
        return None
    others = [one for one in usable.values() if one is not question]
    labels = {one.name: one.values for one in others if one.is_label}
    label, answer = best_label(labels), _answer(others, labels)
    chosen = [name for name in (label, answer.name if answer else None) if name is not None]
    if (
        label is not None
        and answer is not None
        and (not _is_usual(label) or _contradicts(records, question.name, label))
    ):
        chosen = [answer.name]
    if not chosen:
        chosen = [one.name for one in others if one.structured]
    if not chosen:
        return None
    maps = [f"{question.name}=input"]
    if answer is not None and chosen == [answer.name]:
        maps.append(f"{answer.name}=output")
    else:
        maps += [f"{name}=output.{plain(name) or 'value'}" for name in chosen]
    group = _group(others)
    maps += [f"{group.name}=group"] if group is not None and group.name not in chosen else []
    return Reading(tuple(maps), tuple(sorted(labels.keys() - set(chosen))))


def _contradicts(records: Sequence[Mapping[str, Any]], question: str, label: str) -> bool:
    """Return whether many records ask what another one asks, with another label. No version keeps such."""
    labels: dict[int, set[Any]] = {}
    for record in records:
        labels.setdefault(hash(str(record.get(question))), set()).add(str(record.get(label)))
    several = sum(len(labels[hash(str(record.get(question)))]) > 1 for record in records)
    return several > CONTRADICTING * len(records)


def _is_usual(label: str) -> bool:
    return any(one in LABEL_NAMES for one in plain(label).split("_"))


def _question(columns: Sequence[Column], records: int) -> Column | None:
    spoken = [
        one
        for one in columns
        if one.is_text and one.filled >= FILLED * records and not one.is_label and one.plain not in ANSWERS
    ]

    def rank(one: Column) -> tuple[int, float, str]:
        usual = QUESTIONS.index(one.plain) if one.plain in QUESTIONS else len(QUESTIONS)
        return (usual, -one.characters / one.filled, one.name)

    spoken = [one for one in spoken if one.plain in QUESTIONS or 2 * len(one.distinct) > one.filled]
    return min(spoken, key=rank, default=None)


def _answer(columns: Sequence[Column], labels: Mapping[str, Values]) -> Column | None:
    found = [one for one in columns if one.plain in ANSWERS and one.name not in labels and one.texts]
    return min(found, key=lambda one: ANSWERS.index(one.plain), default=None)


def _group(columns: Sequence[Column]) -> Column | None:
    found = [one for one in columns if one.plain in GROUPS and 2 <= len(one.distinct) < one.filled]
    return min(found, key=lambda one: (GROUPS.index(one.plain), one.name), default=None)
