"""Recognisers of personal data by pattern: presidio's, and our own for what presidio's miss.

Each recogniser is called directly, without presidio's engine, which would need a language model.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import polars as pl

MIN_SCORE = 0.35
"""Findings with a lower score are dropped. Presidio scores an unvalidated match lower than this, such as nine
digits that might be an SSN."""

# presidio's default regions name "UK" and "FE", which phonenumbers does not know.
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IT", "ES", "NL", "IL", "IN", "AU", "BR")

_PHONE_WORD = "(?:phones?|call|ring|mobile|cell|tel|telephone|fax|reach|text|number is)"
_PHONE_WORDS = re.compile(rf"\b{_PHONE_WORD}\b", re.IGNORECASE)
_PHONE_SHAPE = re.compile(r"(?<![\w.])[+(]?\d(?:[ ().\-]{0,2}\d){6,14}(?:\s?x\s?\d{2,5})?(?![\w])")
_PHONE_CONTEXT_CHARACTERS = 40
_DIGIT_RUN = re.compile(r"[+(]?\d(?:[^0-9A-WYZa-wyz]{0,4}\d){6,}")
_NATIONAL_SHAPE = re.compile(
    r"\d(?:[^0-9A-WYZa-wyz]{0,4}\d){8}|\d{2,4}[ ().\-]{1,2}\d{2,4}[ ().\-]{1,2}\d{2,4}|\d{3}[ .\-]\d{4}"
)
"""Nine digits, or fewer in groups. A number of seven or eight digits without groups (a bug number, a date)
counts as a national number of ``PHONE_REGIONS`` only after a word that announces it."""
_TIME_SHAPE = re.compile(r"\d{14,}|\(?(?:19|20)\d\d-\d\d-\d\d(?:\D{1,2}\d\d:\d\d(?::\d\d)?)?")
_WINDOW_CHARACTERS = 16
_REMEMBERED_WINDOWS = 1 << 15
_CARD_SHAPE = re.compile(r"(?<![\w-])\d(?:[ -]?\d){11,18}(?![\w-])")
_IPV6_SHAPE = re.compile(r"(?<![\w:.])[0-9A-Fa-f:.]{2,45}(?![\w:])")
_HAS_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w")
_IBAN_SHAPE = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,4})?\b")
_DATE_SHAPE = re.compile(r"^(?:\d{4}[-. ]\d{1,2}[-. ]\d{1,2}|\d{1,2}[-. ]\d{1,2}[-. ]\d{4})$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One entity in a text, by character positions."""

    entity: str
    start: int
    end: int
    score: float


Recognizer = Callable[[str], list[Finding]]

ENTITIES: dict[str, tuple[str, ...]] = {
    "EMAIL_ADDRESS": ("EmailRecognizer",),
    "PHONE_NUMBER": ("PhoneRecognizer",),
    "CREDIT_CARD": ("CreditCardRecognizer",),
    "IBAN_CODE": ("IbanRecognizer",),
    "IP_ADDRESS": ("IpRecognizer",),
    "US_SSN": ("UsSsnRecognizer",),
    "US_PASSPORT": ("UsPassportRecognizer",),
    "US_ITIN": ("UsItinRecognizer",),
    "UK_NHS": ("NhsRecognizer",),
    "CRYPTO": ("CryptoRecognizer",),
    "MAC_ADDRESS": ("MacAddressRecognizer",),
    "URL": ("UrlRecognizer",),
}
"""The entities that a spec may name, each with presidio's recognisers for it."""


@cache
def recognizers_of(entity: str) -> tuple[Recognizer, ...]:
    """Return the recognisers of ``entity``, a key of ``ENTITIES``."""
    with _without_models():
        from presidio_analyzer import predefined_recognizers
    _stay_offline()
    found: list[Recognizer] = []
    for name in ENTITIES[entity]:
        options = {"supported_regions": PHONE_REGIONS} if name == "PhoneRecognizer" else {}
        find = _adapted(getattr(predefined_recognizers, name)(**options), entity)
        found.append(_NARROWED[name](find) if name in _NARROWED else find)
    return (*found, *_OURS.get(entity, ()))


def find_loose_phones(text: str) -> list[Finding]:
    """Find digit groups after a word such as "call". Presidio finds only valid national numbers."""
    findings: list[Finding] = []
    for match in _PHONE_SHAPE.finditer(text):
        before = text[max(0, match.start() - _PHONE_CONTEXT_CHARACTERS) : match.start()]
        if _PHONE_WORDS.search(before) and not _DATE_SHAPE.match(match.group()):
            findings.append(Finding("PHONE_NUMBER", match.start(), match.end(), MIN_SCORE))
    return findings


def find_luhn_numbers(text: str) -> list[Finding]:
    """Find card numbers of 12 to 19 digits by their check digit (ISO/IEC 7812-1, Luhn)."""
    return [
        Finding("CREDIT_CARD", match.start(), match.end(), 0.9)
        for match in _CARD_SHAPE.finditer(text)
        if _passes_luhn([int(char) for char in match.group() if char.isdigit()])
    ]


def find_ibans(text: str) -> list[Finding]:
    """Find IBANs in either case by their check digits (ISO 13616, modulo 97)."""
    findings: list[Finding] = []
    for match in _IBAN_SHAPE.finditer(text):
        compact = match.group().replace(" ", "").upper()
        if 15 <= len(compact) <= 34 and _passes_mod97(compact):
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


_ANNOUNCED = rf"(?is:{_PHONE_WORD}.{{0,42}}\d(?:[ ().\-]{{0,2}}\d){{6}})"
SIGNS = {
    "EMAIL_ADDRESS": r"\S@[^\s@]+\.\S",
    "PHONE_NUMBER": f"{_NATIONAL_SHAPE.pattern}|{_ANNOUNCED}",
    "CREDIT_CARD": r"\d(?:[ -]?\d){11}",
    "IBAN_CODE": r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2}",
    "IP_ADDRESS": r"\d\.\d{1,3}\.\d{1,3}\.\d|::[0-9A-Fa-f:]*\d|\d[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]{1,4}:){7}",
    "US_SSN": r"\d(?:[-. ]?\d){8}",
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
}


def _passes_luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _passes_mod97(iban: str) -> bool:
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _adapted(recognizer: object, entity: str) -> Recognizer:
    def find(text: str) -> list[Finding]:
        results = recognizer.analyze(text, [entity], None) or []  # type: ignore[attr-defined]
        return [Finding(entity, r.start, r.end, r.score) for r in results if r.score >= MIN_SCORE]

    return find


def _near_digits(find: Recognizer) -> Recognizer:
    """Call ``find`` only for stretches with many digits: presidio reads a text once per country, 3 ms in all.

    Results are remembered, because many texts hold the same version, build or order numbers.
    """
    find = lru_cache(_REMEMBERED_WINDOWS)(find)

    def find_near_digits(text: str) -> list[Finding]:
        findings: list[Finding] = []
        for run in _DIGIT_RUN.finditer(text):
            if _TIME_SHAPE.fullmatch(run.group()) or not _NATIONAL_SHAPE.search(run.group()):
                continue
            start = max(run.start() - _WINDOW_CHARACTERS, 0)
            for f in find(text[start : run.end() + _WINDOW_CHARACTERS]):
                findings.append(Finding(f.entity, f.start + start, f.end + start, f.score))
        return list(dict.fromkeys(findings))

    return find_near_digits


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


_NARROWED: dict[str, Callable[[Recognizer], Recognizer]] = {
    "PhoneRecognizer": _near_digits,
    "IpRecognizer": _whole,
}


@cache
def _stay_offline() -> None:
    """Make presidio check domains against the public suffix list that is packaged with tldextract.

    By default it downloads the current list, so that results would depend on the network and on the day.
    """
    import tldextract.tldextract

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())


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
