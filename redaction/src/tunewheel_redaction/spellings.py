"""Finds e-mail addresses and URLs, and what is spelt so that a machine does not read it: "jane at acme dot
com", addresses broken over lines, Base64, and card numbers split over the turns of a conversation."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from tunewheel_redaction.check_digits import passes_luhn
from tunewheel_redaction.finding import Finding

_BREAK = r"[ \t]{0,2}=?\r?\n[ \t>]{0,4}"
_DOT = rf"(?:\.(?:{_BREAK})?| \. | dot )"
_LOCAL = r"\w.+!#$%&'*/=?^`{|}~-"
"""The characters before the ``@`` (RFC 5322 §3.2.3)."""
_EMAIL = re.compile(
    rf"(?i)(?<![\w+])(?<!\w[.-])([\w+][{_LOCAL}]{{0,63}}?)"
    rf"((?:{_BREAK})?@(?:{_BREAK})?| {{1,2}}@ {{1,2}}| at )"
    rf"((?:[\w-]{{1,63}}{_DOT}){{1,8}}[^\W\d_]{{2,24}})(?![\w-])"
)
_URL = re.compile(
    r"(?i)(?<![\w@.-])(?:https?://)?((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w@-])"
    r"(?::\d{1,5}\b)?(?:[/?#][^\s\"'<>]*)?"
)
_LOOSE = re.compile(r"(?i) dot |[._+\d]")
ENCODED = r"[A-Za-z0-9+/]{12,}={0,2}"
"""A run of Base64 (RFC 4648), for Python and for Rust alike."""
_ENCODED = re.compile(rf"(?<![A-Za-z0-9+/=]){ENCODED}")
_QUARTERS = re.compile(r"(?<![\w-])\d{4}(?:[ -]?\d{4}){0,2}(?![\w-])")
_CARD = re.compile(r"[3-6]\d{15}")


def find_emails(text: str) -> list[Finding]:
    """Find e-mail addresses, also with spaces, line breaks, or the words "at" and "dot" in them. The domain
    must end with a public suffix."""
    findings, begin = list[Finding](), 0
    while match := _EMAIL.search(text, begin):
        local, at, domain = match.groups()
        loose = at.strip().lower() != "at" or _LOOSE.search(local) or re.search("(?i) dot ", domain)
        # "look at example.com" is no address
        if loose and _is_public(re.sub(r"\s|=|>", "", re.sub("(?i) dot ", ".", domain))):
            findings.append(Finding("EMAIL_ADDRESS", match.start(1), match.end(), 0.8))
            begin = match.end()
        else:
            begin = match.start(
                3
            )  # what looked like a domain may begin an address: "me at jo.li@example.com"
    return findings


def find_urls(text: str) -> list[Finding]:
    """Find addresses of pages, with or without ``https://``, whose host ends with a public suffix."""
    findings, begin = list[Finding](), 0
    while match := _URL.search(text, begin):
        if _is_public(match[1]):
            end = match.start() + len(match.group().rstrip(".,;:!?)"))
            findings.append(Finding("URL", match.start(), end, 0.6))
            begin = match.end()
        else:
            begin = match.end(1)  # the path of what is no host may hold an address
    return findings


@cache
def public_suffixes() -> Any:
    """Return tldextract with the public suffix list of its package.

    By default it downloads the current list, so that results would depend on the network and on the day.
    """
    from tldextract import TLDExtract

    return TLDExtract(cache_dir=None, suffix_list_urls=())


@lru_cache(1 << 14)
def _is_public(domain: str) -> bool:
    return bool(public_suffixes()(domain).suffix)


def decoded_runs(text: str) -> list[tuple[int, int, str]]:
    """Return the runs of Base64 in ``text`` that hold readable text: start, end, and the text."""
    runs: list[tuple[int, int, str]] = []
    for match in _ENCODED.finditer(text):
        run = match.group().rstrip("=")
        try:
            said = base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode()
        except (binascii.Error, ValueError):
            continue
        if said.isprintable() or said.replace("\n", " ").isprintable():
            runs.append((*match.span(), said))
    return runs


def find_split_cards(turns: Sequence[str]) -> dict[int, list[Finding]]:
    """Return card numbers of 16 digits whose groups of four stand in two or three of ``turns``, one after the
    other, by the turn's position."""
    pieces = [
        (place, match.start(), match.end(), re.sub(r"\D", "", match.group()))
        for place, turn in enumerate(turns)
        for match in _QUARTERS.finditer(turn)
    ]
    found: dict[int, list[Finding]] = {}
    for first in range(len(pieces)):
        for count in (2, 3, 4):
            chosen = pieces[first : first + count]
            if len(chosen) < count:
                break
            digits = "".join(piece[3] for piece in chosen)
            near = all(b[0] - a[0] <= 1 for a, b in pairwise(chosen)) and chosen[0][0] != chosen[-1][0]
            if near and _CARD.fullmatch(digits) and passes_luhn([*map(int, digits)]):
                for place, start, end, _ in chosen:
                    found.setdefault(place, []).append(Finding("CREDIT_CARD", start, end, 0.9))
    return found
