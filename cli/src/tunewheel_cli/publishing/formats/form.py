"""What every form of a file has: how its records are recognised, and the examples that a record makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
Fields = dict[str, Any]
SYSTEM = "system prompts (task.system_prompt of the project is used)"
_MOST_SAID = 30


class LeftOut(Counter[str]):
    """What an example cannot hold, in words, and how often it was left out; and the system prompts, which
    belong to the project."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = Counter[str]()

    def leave_prompt(self, text: str) -> None:
        self[SYSTEM] += 1
        if text in self.prompts or len(self.prompts) < _MOST_SAID:
            self.prompts[text] += 1


class Unfit(Exception):
    """A record cannot become an example. ``field`` and ``reason`` are those of its refusal."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


@dataclass(frozen=True, slots=True)
class Form:
    name: str
    title: str
    """For messages."""
    keys: frozenset[str]
    """The keys that a ``--map`` may name as its target, beside the fields of events."""
    fits: Callable[[Record], bool]
    examples: Callable[[Record, LeftOut], Iterable[Fields]]
    """Return the fields of the examples that a record makes. Raises Unfit."""


KEPT = ("group", "validated_by", "validated_at", "attributes")
"""The fields of an example that a record of any form may have."""


def kept(record: Record) -> Fields:
    return {name: record[name] for name in KEPT if record.get(name)}


def leave_out(left: LeftOut, record: Record, used: Iterable[str]) -> None:
    """Count the values of ``record`` that no field takes. Of very many keys only the first are named."""
    known = {*used, *KEPT, "label"}
    for key in (key for key in record if key not in known):
        said = f"values of {key[:40]!r}"
        left[said if said in left or len(left) < _MOST_SAID else "values of other keys"] += 1
