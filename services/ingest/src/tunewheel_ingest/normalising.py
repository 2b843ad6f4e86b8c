"""Normalises text, in time linear in its length."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs, which UTF-8 cannot hold."""
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """Return ``text`` in Unicode NFC (UAX #15) with LF line ends, without control characters, lone
    surrogates, trailing spaces and runs of blank lines. Words, case and spelling stay unchanged."""
    if text.isprintable() and unicodedata.is_normalized("NFC", text):
        return text.strip()  # one line without control characters, like titles and most questions
    text = unicodedata.normalize("NFC", _CONTROL.sub("", text)).replace("\r\n", "\n").replace("\r", "\n")
    # not a regular expression: with lookahead it would take quadratic time on a long run of spaces
    lines = (line.rstrip(" \t") for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
