"""Folds texts to what people read, so that no spelling hides personal data from a recogniser.

``jane&#64;acme.com``, ``jane%40acme.com``, fullwidth letters, digits of other scripts, no-break spaces and
invisible characters are replaced by the characters that they stand for. A recogniser searches the folded
text. Its findings are then mapped back to positions in the original text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import polars as pl

from tunewheel_redaction.finding import Finding

_ENTITY = r"&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,31});?"
_PERCENT = r"%(?:25){0,4}[2-7][0-9A-Fa-f]"
_QUOTED = r"=(?:40|2[Ee])[A-Za-z]"
"""``@`` and ``.`` in quoted-printable (RFC 2045 §6.7). A digit may follow an equals sign in any text."""
_BRACKETED = r"(?i: ?[\[({] ?(?:at|dot) ?[\])}] ?)|\\[@.]|-\r?\n[ >]{0,4}"
"""``jane [at] acme [dot] com``, and ``jane\\@acme.com`` as Markdown escapes it; a hyphen at the end of
a line."""
_ESCAPE = r"\\u(?:[0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2})|\\x[0-9A-Fa-f]{2}"
"""The escapes of a character in JSON and many languages. Lone surrogates stay as they are."""
_AGAIN = re.compile(r"&(?:amp;)+(?=[#A-Za-z])")
"""The start of an entity that was escaped more than once: ``&amp;amp;#64;``."""
_LAST = 0x20000
"""The first code point that is not folded. Unicode's planes from here on hold no equivalents of ASCII."""


@cache
def _meanings() -> dict[str, str]:
    """Return, by character outside ASCII, its ASCII equivalent by NFKC (UAX 15); "" for an invisible one."""
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
    """Return the pattern of everything that is folded, for Python and for Rust alike; linear in both."""
    codes = sorted(map(ord, _meanings()))
    runs: list[list[int]] = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    listed = "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)
    return f"[{listed}]|{_ENTITY}|{_PERCENT}|{_ESCAPE}|{_QUOTED}|{_BRACKETED}"


@cache
def _compiled() -> re.Pattern[str]:
    return re.compile(_pattern())


def fold(text: str) -> str:
    """Return ``text`` folded to what people read."""
    return _compiled().sub(lambda match: _meant(match.group()), text)


def fold_texts(texts: pl.Series) -> tuple[pl.Series, list[int]]:
    """Return ``texts`` folded, and the positions of the texts that folding changed."""
    places = texts.str.contains(_pattern()).fill_null(False).arg_true().to_list()
    if not places:
        return texts, places
    folded = texts.to_list()
    for place in places:
        folded[place] = fold(folded[place])
    return pl.Series(texts.name, folded, dtype=pl.String), places


def as_written(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Map findings in ``fold(text)`` to positions in ``text``."""
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
        return chr(int(written[-2:], 16))
    if written[0] == "-":
        return "-"
    if written[0] == "=":
        return chr(int(written[1:3], 16)) + written[3]
    if (plain := written.strip(" [](){}").lower()) in ("at", "dot"):
        return "@" if plain == "at" else "."
    if written[0] == "\\" and len(written) == 2:
        return written[1]
    if written[0] == "\\":
        written = chr(int(written[2:], 16))
    elif written[0] == "&":
        written = html.unescape(_AGAIN.sub("&", written))
    return "".join(_meanings().get(character, character) for character in written)
