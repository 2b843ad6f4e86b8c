"""Recognisers of personal data by pattern: presidio's, and our own for what presidio's miss.

Each recogniser is called directly, without presidio's engine, which would need a language model.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import polars as pl

from tunewheel_redaction import phones
from tunewheel_redaction.addresses import find_addresses
from tunewheel_redaction.check_digits import passes_luhn, passes_mod97
from tunewheel_redaction.finding import MIN_SCORE, Finding, Recognizer
from tunewheel_redaction.names import find_names
from tunewheel_redaction.phones import PHONE_REGIONS, find_loose_phones, near_digits
from tunewheel_redaction.secrets import find_secrets
from tunewheel_redaction.spellings import find_emails, find_urls, public_suffixes

OWN_ENTITIES = frozenset({"SECRET", "PERSON", "LOCATION", "EMAIL_ADDRESS", "URL"})
"""The entities that presidio finds by no pattern, or by one that takes a minute for 6,000 characters."""

_CONTEXT_CHARACTERS = 40
_CARD_SHAPE = re.compile(r"(?<![\w-])\d(?:[ -]?\d){11,18}(?![\w-])")
_GAP = r"[ >]{0,3}[-./]?\n?[ >]{0,3}"
_GROUPED_CARD = re.compile(
    rf"(?<![\w-])(?:[3-6]\d{{3}}(?:{_GAP}\d{{4}}){{3}}|3[47]\d\d{_GAP}\d{{6}}{_GAP}\d{{5}})(?![\w-])"
)
"""Groups of a card number with dots, slashes or line breaks between them."""
_IPV6_SHAPE = re.compile(r"(?<![\w:.])[0-9A-Fa-f:.]{2,45}(?![\w:])")
_HAS_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w")
READS_ON = ".*"
"""What a pattern holds that may read to the end of the text at each word: the loosest for an Indian PAN."""
_IBAN_SHAPE = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,4})?\b")


@cache
def _presidios() -> dict[str, type[Any]]:
    """Return presidio's classes of recognisers by pattern, by the entity that each finds."""
    with _without_models():
        from presidio_analyzer import PatternRecognizer, predefined_recognizers
    _stay_offline()
    classes = [kind for kind in vars(predefined_recognizers).values() if isinstance(kind, type)]
    patterns: list[Any] = [kind for kind in classes if issubclass(kind, PatternRecognizer)]
    made: list[Any] = [kind() for kind in patterns if kind is not PatternRecognizer]
    found: dict[str, type[Any]] = {one.supported_entities[0]: type(one) for one in made}
    return found | {"PHONE_NUMBER": predefined_recognizers.PhoneRecognizer}


@cache
def recognizers_of(entity: str) -> tuple[Recognizer, ...]:
    """Return the recognisers of ``entity``, which is one of ``PII_ENTITIES``."""
    own = _OURS.get(entity, ())
    if entity in OWN_ENTITIES:
        return own
    presidios = _presidios()[entity]
    if entity == "PHONE_NUMBER":
        return (near_digits(_analyzed(presidios(supported_regions=PHONE_REGIONS))), *own)
    find = _adapted(presidios(), entity)
    return (_whole(find) if entity == "IP_ADDRESS" else find, *own)


def find_luhn_numbers(text: str) -> list[Finding]:
    """Find card numbers of 12 to 19 digits by their check digit (ISO/IEC 7812-1, Luhn)."""
    return [
        Finding("CREDIT_CARD", match.start(), match.end(), 0.9)
        for shape in (_CARD_SHAPE, _GROUPED_CARD)
        for match in shape.finditer(text)
        if passes_luhn([int(char) for char in match.group() if char.isdigit()])
    ]


def find_ibans(text: str) -> list[Finding]:
    """Find IBANs in either case by their check digits (ISO 13616, modulo 97)."""
    findings: list[Finding] = []
    for match in _IBAN_SHAPE.finditer(text):
        compact = match.group().replace(" ", "").upper()
        if 15 <= len(compact) <= 34 and passes_mod97(compact):
            findings.append(Finding("IBAN_CODE", match.start(), match.end(), 1.0))
    return findings


def find_ipv6(text: str) -> list[Finding]:
    """Find IPv6 addresses (RFC 4291 §2.2) that hold a digit. Without one, ``::`` may belong to source
    code."""
    findings: list[Finding] = []
    for match in _IPV6_SHAPE.finditer(text):
        run = match.group()
        for address in (run, run.rstrip("."), run.rstrip(".:")):
            if _HAS_DIGIT.search(address) and _is_ipv6(address):
                findings.append(Finding("IP_ADDRESS", match.start(), match.start() + len(address), 0.95))
                break
    return findings


SIGNS = {
    "EMAIL_ADDRESS": r"@|(?i: dot | at [\w-]{1,63} ?\.)",
    "PHONE_NUMBER": phones.SIGN,
    "CREDIT_CARD": r"\d(?:[ >]{0,3}[-./]?\n?[ >]{0,3}\d){11}",
    "IBAN_CODE": r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2}",
    "IP_ADDRESS": r"\d\.\d{1,3}\.\d{1,3}\.\d|::[0-9A-Fa-f:]*\d|\d[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]{1,4}:){7}",
    "US_SSN": r"\d(?:[-. ]?\d){8}",
    "LOCATION": r"\d",
    "PERSON": r"\p{L}{2}",
}
"""By entity with a costly recogniser, a cheap pattern that every text with such an entity matches. Most texts
match none. The patterns are valid for Python and for Rust alike, and linear in both. Entities without a
pattern here are always searched for."""


def may_contain(entity: str, texts: pl.Series) -> pl.Series:
    """Return, cheaply, which of ``texts`` may contain ``entity``, as booleans."""
    return texts.str.contains(SIGNS.get(entity, ""))


_OURS: dict[str, tuple[Recognizer, ...]] = {
    "PHONE_NUMBER": (find_loose_phones,),
    "CREDIT_CARD": (find_luhn_numbers,),
    "IBAN_CODE": (find_ibans,),
    "IP_ADDRESS": (find_ipv6,),
    "EMAIL_ADDRESS": (find_emails,),
    "URL": (find_urls,),
    "SECRET": (find_secrets,),
    "PERSON": (find_names,),
    "LOCATION": (find_addresses,),
}


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def patterns_of(entity: str) -> list[tuple[Any, float]]:
    """Return presidio's compiled patterns for ``entity`` with their scores, without those that read on to the
    end of the text. The others repeat nothing without a bound, so that their time is linear in the text."""
    import regex

    one = _presidios()[entity]()
    flags = one.global_regex_flags
    return [(regex.compile(p.regex, flags), p.score) for p in one.patterns if READS_ON not in p.regex]


def _adapted(recognizer: Any, entity: str) -> Recognizer:
    """Return ``recognizer`` as a function. Like presidio's engine it accepts an uncertain match after one of
    the recogniser's context words, such as "passport". Presidio's own ``analyze`` compares each match with
    each other, so that its time grows with the square of their number."""
    words = "|".join(map(re.escape, recognizer.context or ()))
    context = re.compile(rf"(?i)\b(?:{words})\b") if words else None
    patterns = patterns_of(entity)

    def find(text: str) -> list[Finding]:
        findings: list[Finding] = []
        for pattern, score in patterns:
            for match in pattern.finditer(text):
                (start, end), value = match.span(), match.group()
                valid = recognizer.validate_result(value)
                if valid is False or recognizer.invalidate_result(value):
                    continue
                sure = 1.0 if valid else score
                before = max(0, start - _CONTEXT_CHARACTERS), start
                if sure >= MIN_SCORE or (context is not None and context.search(text, *before)):
                    findings.append(Finding(entity, start, end, max(sure, MIN_SCORE)))
        return findings

    return find


def _analyzed(recognizer: Any) -> Recognizer:
    """Return ``recognizer``, which has no patterns, as a function."""

    def find(text: str) -> list[Finding]:
        return [Finding(r.entity_type, r.start, r.end, r.score) for r in recognizer.analyze(text, [], None)]

    return find


def _whole(find: Recognizer) -> Recognizer:
    """Keep only findings of ``find`` that hold a digit and are no part of a longer word or number. Presidio
    takes the ``::`` of ``std::vector`` for an address, and finds ``fe80::1`` without its end."""

    def find_whole(text: str) -> list[Finding]:
        around = [(f, text[max(f.start - 1, 0) : f.start] + text[f.end : f.end + 1]) for f in find(text)]
        return [
            finding
            for finding, beside in around
            if _HAS_DIGIT.search(text, finding.start, finding.end) and not _WORD.search(beside)
        ]

    return find_whole


@cache
def _stay_offline() -> None:
    """Make presidio check domains against the packaged public suffix list."""
    import tldextract.tldextract

    tldextract.tldextract.TLD_EXTRACTOR = public_suffixes()


@contextlib.contextmanager
def _without_models() -> Iterator[None]:
    """Import presidio as if torch and transformers were not installed.

    It imports both if they are installed, for recognisers that are not used here. That takes ten seconds and
    a gigabyte of memory.
    """
    hidden = [name for name in ("torch", "transformers") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
