"""A finding of the doctor: something in order, or a fault with its fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

NAMED = 6
"""How many topics or groups are listed by name. Of the rest only the number is given."""


class Verdict(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    about: str
    """``kafka``, ``topics``, ``copies``, ``rights``, ``services``, ``store``, ``engine``, ``base``,
    ``device`` or ``clock``."""
    verdict: Verdict
    text: str
    fix: str = ""


def fine(about: str, text: str) -> Finding:
    return Finding(about, Verdict.OK, text)


def wrong(about: str, text: str, fix: str) -> Finding:
    return Finding(about, Verdict.WRONG, text, fix)


def unknown(about: str, text: str, fix: str = "") -> Finding:
    return Finding(about, Verdict.NOT_CHECKED, text, fix)


def listed(names: Iterable[str]) -> str:
    """Return the names as text; of many names, only the first ones and the number of the rest."""
    found = sorted(names)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more
