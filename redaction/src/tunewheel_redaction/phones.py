"""Finds telephone numbers: presidio's recogniser on short stretches of digits, and announced numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from tunewheel_redaction.finding import MIN_SCORE, Finding, Recognizer

# presidio's default regions name "UK" and "FE", which phonenumbers does not know.
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IT", "ES", "NL", "IL", "IN", "AU", "BR")

_PHONE_WORD = "(?:phones?|call|ring|mobile|cell|tel|telephone|fax|reach|text|number is)"
_PHONE_WORDS = re.compile(rf"\b{_PHONE_WORD}\b", re.IGNORECASE)
_PHONE_SHAPE = re.compile(r"(?<![\w.])[+(]?\d(?:[ ().\-]{0,2}\d){6,14}(?:\s?x\s?\d{2,5})?(?![\w])")
_CONTEXT_CHARACTERS = 40
_DIGIT_RUN = re.compile(r"[+(]?\d(?:[^0-9A-WYZa-wyz]{0,4}\d){6,}")
_NATIONAL_SHAPE = re.compile(
    r"\d(?:[^0-9A-WYZa-wyz]{0,4}\d){8}|\d{2,4}[ ().\-]{1,2}\d{2,4}[ ().\-]{1,2}\d{2,4}|\d{3}[ .\-]\d{4}"
)
"""Nine digits, or fewer in groups. A number of seven or eight digits without groups (a bug number, a date)
counts as a national number of ``PHONE_REGIONS`` only after a word that announces it."""
_TIME_SHAPE = re.compile(r"\d{14,}|\(?(?:19|20)\d\d-\d\d-\d\d(?:\D{1,2}\d\d:\d\d(?::\d\d)?)?")
_DATE_SHAPE = re.compile(r"^(?:\d{4}[-. ]\d{1,2}[-. ]\d{1,2}|\d{1,2}[-. ]\d{1,2}[-. ]\d{4})$")
_OTHER_NUMBER = re.compile(
    r"(?i)\b(?:(?:steuer|tax|vat|ust|order|invoice|ticket|case|bug|serial|tracking|account|customer|article)"
    r"[ -]?(?:id(?:nr)?|no|nr|number|nummer)?|isbn|ean|issn|build|lat(?:itude)?|lon(?:gitude)?)[ .:#=(]{1,4}$"
)
"""Words before a number that is no telephone number."""
_DECIMAL = re.compile(r"-?[1-9]\d{0,5}[.,]\d+|-?0\.\d+")
_LONGEST_RUN = 48
_PIECE = re.compile(rf"[+(]?\d.{{0,{_LONGEST_RUN - 2}}}(?!\d)")
"""A part of a line that does not end within a group of digits."""
_MOST_GROUPS = 6
"""A line with more groups of digits is a row of a table."""
_WINDOW_CHARACTERS = 16
_WINDOWS_PER_TEXT = 64
"""Presidio reads a stretch of digits once per country, 4 ms in all. So that no text takes long, only this
many stretches of a text are read. Of the others every one counts that starts as telephone numbers do."""
_STARTS_AS_PHONES = re.compile(r"[+(]|0[1-9]|[2-9]\d\d[ .\-)]")
_REMEMBERED_WINDOWS = 1 << 15
SIGN = rf"{_NATIONAL_SHAPE.pattern}|(?is:{_PHONE_WORD}.{{0,42}}\d(?:[ ().\-]{{0,2}}\d){{6}})"


def find_loose_phones(text: str) -> list[Finding]:
    """Find digit groups after a word such as "call". Presidio finds only valid national numbers."""
    return [
        Finding("PHONE_NUMBER", match.start(), match.end(), MIN_SCORE)
        for match in _PHONE_SHAPE.finditer(text)
        if _announced(text, match.start()) and not _DATE_SHAPE.match(match.group())
    ]


def near_digits(find: Recognizer) -> Recognizer:
    """Call ``find`` only for short stretches with many digits, and remember its results, because many texts
    hold the same version, build or order numbers."""
    find = lru_cache(_REMEMBERED_WINDOWS)(find)

    def find_near_digits(text: str) -> list[Finding]:
        findings: list[Finding] = []
        for number, (start, end) in enumerate(_stretches(text)):
            if number >= _WINDOWS_PER_TEXT:
                if _STARTS_AS_PHONES.match(text, start):
                    findings.append(Finding("PHONE_NUMBER", start, end, MIN_SCORE))
                continue
            first = max(start - _WINDOW_CHARACTERS, 0)
            for f in find(text[first : end + _WINDOW_CHARACTERS]):
                findings.append(Finding(f.entity, f.start + first, f.end + first, f.score))
        return list(dict.fromkeys(findings))

    return find_near_digits


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of digits that may be telephone numbers; a long run of digits is read by lines, and
    a long line in pieces: a line may list several numbers."""
    for run in _DIGIT_RUN.finditer(text):
        start, end = run.span()
        for line in re.finditer(r"[^\n]+", run.group()) if end - start > _LONGEST_RUN else [None]:
            at, till = (start, end) if line is None else (start + line.start(), start + line.end())
            if _may_be_phone(text, at, till):
                yield from (piece.span() for piece in _PIECE.finditer(text, at, till))


def _may_be_phone(text: str, start: int, end: int) -> bool:
    run = text[start:end]
    if _TIME_SHAPE.fullmatch(run) or not _NATIONAL_SHAPE.search(run):
        return False
    if run[0] == "+" or _announced(text, start):
        return True
    cells = re.split(r"[\s,;|]+", run)
    decimals = sum(_DECIMAL.fullmatch(cell) is not None for cell in cells)
    return not (
        len(cells) > _MOST_GROUPS
        or decimals >= 2
        or decimals == len(cells)
        or _OTHER_NUMBER.search(text, max(0, start - _CONTEXT_CHARACTERS), start)
    )


def _announced(text: str, start: int) -> bool:
    return _PHONE_WORDS.search(text, max(0, start - _CONTEXT_CHARACTERS), start) is not None
