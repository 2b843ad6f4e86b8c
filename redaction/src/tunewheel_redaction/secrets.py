"""Finds credentials: vendors' keys and tokens by Kingfisher's rules, announced passwords by our own patterns.

Kingfisher runs in the process. It uses the network only to validate a finding, which is not asked for here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from tunewheel_redaction.finding import Finding

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

_SCORE = 1.0
_LONGEST_NAME = 64
_NAMES = (
    r"pass(?:word|wort|phrase|code|wd)|pwd|kennwort|contraseña|mot de passe|senha|wachtwoord|hasło|"
    r"(?:[a-z0-9]{1,20}[_ -])?(?:api|access|account|auth|private|secret|shared|signing|encryption|client|"
    r"bearer|session|refresh|id)[_ -]?(?:access[_ -]?)?(?:key|token|secret)|secret|token|credentials?"
)
_ANNOUNCED = re.compile(
    rf"(?i)(?<![a-z0-9])(?:{_NAMES})[\"'`*]{{0,3}}"
    r"(?:\s{0,3}(?::=|=>|[:=])\s{0,3}|\s(?:is|was|to|ist|lautet|est|es|é)[ :]{1,2})"
    r"[\"'`*]{0,3}([^\s\"'`<>,;]{4,512})"
)
_NAME = re.compile(rf"(?:.*\s)?(?:{_NAMES})\s*", re.DOTALL)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z2-7]{16}(?![A-Za-z0-9])"
    r"|(?<![\w:])\d{8,10}:[A-Za-z0-9_-]{35}(?![\w-])"
    r"|(?i:\bbearer\s{1,3}(?=[^\s]{0,60}\d)[A-Za-z0-9._~+/=-]{16,512})"
    r"|(?i:\bbasic\s{1,3}(?=[^\s]{0,60}[\d=])[A-Za-z0-9+/]{12,512}={0,2})"
)
"""Keys of Amazon, bots' tokens of Telegram, and the header ``Authorization``."""
_IN_URL = re.compile(r"(?i)(?<![a-z])[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,64}:([^\s/@]{1,256})@")
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]{0,60}-----|\Z)"
)
"""A private key (RFC 7468), up to its end or the end of the text."""
_STAND_IN = re.compile(r"[$%{(\[]|\*{3}|x{4}|https?:|\.{3}|process\.|os\.|env\b", re.IGNORECASE)
"""How documentation writes the place of a secret: ``$PASSWORD``, ``{{ token }}``, ``****``."""


def announces_secret(words: str) -> bool:
    """Return whether ``words``, the words of a key in small letters, end with the name of a credential."""
    return _NAME.fullmatch(words[-_LONGEST_NAME:]) is not None


def find_secrets(text: str) -> list[Finding]:
    """Find keys, tokens, private keys, and passwords in URLs or after a word that announces them."""
    spans = [match.span() for match in _SHAPES.finditer(text)]
    spans += [match.span(1) for match in _IN_URL.finditer(text) if not _STAND_IN.match(match[1])]
    for match in _ANNOUNCED.finditer(text):
        value = match[1].rstrip(".,;:!?)")
        if _is_secret(value):
            spans.append((match.start(1), match.start(1) + len(value)))
    spans += [match.span() for match in _KEY_BLOCK.finditer(text)]
    text = _KEY_BLOCK.sub(lambda match: " " * len(match.group()), text)
    return [Finding("SECRET", start, end, _SCORE) for start, end in (*spans, *_by_rules(text))]


def _is_secret(value: str) -> bool:
    """Return whether an announced value is no plain word: "password: required" holds no secret."""
    if len(value) < 6 or _STAND_IN.match(value):
        return False
    cases = any(map(str.islower, value)) + any(map(str.isupper, value))
    digits = any(map(str.isdigit, value))
    symbols = any(not char.isalnum() and char not in "-_./" for char in value[1:])
    return cases + digits + symbols >= 2 and (digits or symbols or len(value) >= 20)


def _by_rules(text: str) -> list[tuple[int, int]]:
    found_here = [found for found in _scanner().scan(text.encode("utf-8", "replace")) if found.visible]
    bytes_before = (
        list(accumulate(len(char.encode("utf-8", "replace")) for char in text)) if found_here else []
    )
    spans: list[tuple[int, int]] = []
    for found in found_here:
        offsets = found.location["start_offset"], found.location["end_offset"]
        start, end = (bisect_right(bytes_before, offset) for offset in offsets)
        at = -1 if found.is_base64_encoded else text.find(found.secret, start, end)
        spans.append((start, end) if at < 0 else (at, at + len(found.secret)))
    return spans


@cache
def _scanner() -> Scanner:
    """Return the scanner. Its rules take seconds to compile. Kingfisher keeps them in the user's cache
    folder, or in ``KF_RULE_CACHE_DIR``."""
    from kingfisher_sdk import Scanner

    return Scanner()
