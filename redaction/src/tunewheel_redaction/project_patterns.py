"""Finds personal data by the project's own patterns: Rust's regular expressions, linear in the text."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPattern

from tunewheel_redaction.finding import Finding

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Noncharacters that mark findings; Unicode reserves them for use inside a process (Unicode 16, §23.7)."""


def find_by_patterns(texts: pl.Series, patterns: Sequence[PiiPattern]) -> dict[int, list[Finding]]:
    """Return the findings of ``patterns``, by the text's position in ``texts``, in order within a text."""
    found: dict[int, list[Finding]] = {}
    if patterns:
        texts = texts.str.replace_all(f"[{_OPEN}{_CLOSE}]", " ")
    for pattern in patterns:
        matching = texts.str.contains(pattern.regex).arg_true()
        marked = texts.gather(matching).str.replace_all(f"(?:{pattern.regex})", f"{_OPEN}${{0}}{_CLOSE}")
        for place, text in zip(matching, marked, strict=True):
            found.setdefault(place, []).extend(_findings(text, pattern.name))
    return {place: sorted(findings, key=lambda f: f.start) for place, findings in found.items()}


def _findings(marked: str, name: str) -> list[Finding]:
    before, *parts = marked.split(_OPEN)
    findings: list[Finding] = []
    position = len(before)
    for part in parts:
        matched, _, after = part.partition(_CLOSE)
        if matched:
            findings.append(Finding(name, position, position + len(matched), 1.0))
        position += len(matched) + len(after)
    return findings
