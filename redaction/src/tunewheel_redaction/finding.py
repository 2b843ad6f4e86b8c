"""What recognisers return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MIN_SCORE = 0.35
"""Findings with a lower score are dropped. Presidio scores an unvalidated match lower than this, such as nine
digits that might be an SSN."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One entity in a text, by character positions."""

    entity: str
    start: int
    end: int
    score: float


Recognizer = Callable[[str], list[Finding]]
