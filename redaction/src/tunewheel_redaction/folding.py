"""Texts as people read them, so that no spelling hides personal data from a recogniser.

``jane&#64;acme.com``, ``jane%40acme.com``, fullwidth letters, digits of other scripts, no-break spaces and
invisible characters: a recogniser is shown what they stand for. What it finds is taken out of the text as it
was written.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import polars as pl

from tunewheel_redaction.recognizers import Finding

_ENTITY = r"&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,31});?"
_PERCENT = r"%[2-7][0-9A-Fa-f]"
_ESCAPE = r"\\u(?:[0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2})|\\x[0-9A-Fa-f]{2}"
"""What JSON and many languages write for a character; halves of surrogate pairs stay as they are."""
_AGAIN = re.compile(r"&(?:amp;)+(?=[#A-Za-z])")
"""The begin of what was escaped more than once: ``&amp;amp;#64;``."""
_LAST = 0x20000
"""Beyond the first two planes of Unicode there are ideographs, and nothing that stands for ASCII."""


@cache
def _meanings() -> dict[str, str]:
    """Return what characters outside ASCII stand for, where that is ASCII or nothing (UAX 15, NFKC)."""
    meanings: dict[str, str] = {}
    for character in map(chr, range(0x80, _LAST)):
        category = unicodedata.category(character)
        if category == "Cf":  # zero width, soft hyphens, marks of direction
            meanings[character] = ""
        elif category == "Nd":
            meanings[character] = str(unicodedata.decimal(character))
        elif category == "Pd":
            meanings[character] = "-"
        elif category in ("Zs", "Zl", "Zp"):
            meanings[character] = " "
        elif category not in ("Cs", "Cn", "Co"):
            plain = unicodedata.normalize("NFKC", character)
            if plain.isascii():
                meanings[character] = plain
    return meanings


@cache
def _pattern() -> str:
    """Return what there is to fold, for Python and for Rust alike; linear in both."""
    codes = sorted(map(ord, _meanings()))
    runs: list[list[int]] = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    listed = "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)
    return f"[{listed}]|{_ENTITY}|{_PERCENT}|{_ESCAPE}"


@cache
def _compiled() -> re.Pattern[str]:
    return re.compile(_pattern())


def fold(text: str) -> str:
    """Return ``text`` as people read it."""
    return _compiled().sub(lambda match: _meant(match.group()), text)


def fold_texts(texts: pl.Series) -> tuple[pl.Series, list[int]]:
    """Return ``texts`` as people read them, and the positions of those that were written otherwise."""
    places = texts.str.contains(_pattern()).fill_null(False).arg_true().to_list()
    if not places:
        return texts, places
    folded = texts.to_list()
    for place in places:
        folded[place] = fold(folded[place])
    return pl.Series(texts.name, folded, dtype=pl.String), places


def as_written(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Return findings in ``fold(text)`` by their positions in ``text``."""
    starts: list[int] = []
    ends: list[int] = []
    last = 0
    for match in _compiled().finditer(text):
        starts += range(last, match.start())
        ends += range(last + 1, match.start() + 1)
        meant, last = len(_meant(match.group())), match.end()
        starts += [match.start()] * meant
        ends += [match.end()] * meant
    starts += range(last, len(text))
    ends += range(last + 1, len(text) + 1)
    return [replace(one, start=starts[one.start], end=ends[one.end - 1]) for one in findings]


def _meant(written: str) -> str:
    if written[0] == "%":
        return chr(int(written[1:], 16))
    if written[0] == "\\":
        written = chr(int(written[2:], 16))
    elif written[0] == "&":
        written = html.unescape(_AGAIN.sub("&", written))
    return "".join(_meanings().get(character, character) for character in written)
