"""Finds postal addresses by their form: a street with its number, a box, and the lines that follow."""

from __future__ import annotations

import re

from tunewheel_redaction.finding import Finding
from tunewheel_redaction.names import UPPER

SCORE = 0.6
_WORD = rf"[{UPPER}][\w'’.\-]{{0,30}}"  # noqa: RUF001
_PARTICLE = (
    "(?:de|da|do|dei|del|della|delle|degli|des|du|la|le|les|los|las|van|von|der|den|am|an|im|of|the|and|al)"
)
_WORDS = rf"{_WORD}(?: (?:{_PARTICLE} ){{0,2}}{_WORD}){{0,4}}"
_NUMBER = r"\d{1,5}[A-Za-z]?"
_STREET = (
    "Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd|Court|Ct|Place|Square|Sq|Terrace|Close|Crescent|"
    "Cres|Highway|Hwy|Parkway|Pkwy|Circle|Trail|Gardens|Grove|Mews|Alley|Way"
)
_STREET_BEFORE = (
    "C/|Rua|Rúa|Rue|rue|Via|Viale|Corso|Piazza|Piazzetta|Calle|Avenida|Avda|Av|Paseo|Plaza|Carrer|Praça|Largo|"
    "Travessa|Estrada|Strada|ul|ulica|trg|Trg|Cesta|Boulevard|Bd|Chemin|Allée|Place|Quai|Route"
)
_STREET_END = (
    "stra(?:ß|ss)e|str|weg|gasse|platz|allee|damm|ufer|vej|gade|gata|gatan|gaten|vägen|veien|vegen|katu|kuja|tie|"
    "laan|straat|plein|gracht|kade|dreef|utca|braut|stien|vei|stræti|straeti|vegur|stræde|bakken|tee|út"
)
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Flat)\.? #?\d{1,5}[A-Za-z]?"
_ANNOUNCED = (
    r"(?i:address(?:es)?(?: is|:| to| with| as)?|lives? (?:at|on|in)|located (?:at|on)|corner of|"
    r"meet(?: me| you)? at)"
)
_BEFORE = rf"(?:{_STREET_BEFORE})\.? (?:{_PARTICLE} ){{0,2}}{_WORDS}"
_ANCHORS = (
    rf"\b{_NUMBER},? (?:{_NUMBER} )?{_WORDS} (?:{_STREET})\b\.?",
    rf"\b(?:{_NUMBER},? ){{0,2}}{_BEFORE},? {_NUMBER}\b",
    rf"\b{_NUMBER},? {_BEFORE}",
    rf"\b(?:\d{{2,6}} )?(?:{_WORD} )?{_WORD}?(?:{_STREET_END})\.? {_NUMBER}\b",
    rf"\b{_NUMBER},? (?:rue|avenue|boulevard|chemin|allée|quai) (?:{_PARTICLE} ){{0,2}}[^\W\d_]{{3,30}}",
    rf"\brue (?:{_PARTICLE} ){{1,2}}[^\W\d_]{{3,30}} {_NUMBER}\b",
    rf"\b{_WORDS} (?:tee|utca|útja|u\.|tér|vei) {_NUMBER}\b",
    rf"\b[a-zß-ž]{{3,30}}(?:straße|strasse|vej|gade|gatan|laan|straat|gasse) {_NUMBER}\b",
    r"(?i:\b(?:P\.? ?O\.? ?Box|Postbox|Postfach|Apartado|Boîte postale) \d{1,6}\b)",
    r"(?i:\b(?:PSC|Unit|CMR) \d{3,4},? Box \d{3,5}\b)",
    r"(?i:\b(?:APO|FPO|DPO) A[AEP] \d{5}\b)",
    rf"\b{_UNIT}\b",
    rf"\b\d{{2,6}} {_WORDS} {_NUMBER}\.?(?=,? (?:Apt|Suite)|\s*\n| ?, [{UPPER}])",
    rf"(?<!\d )\b\d{{2,6}} \d{{1,5}} {_WORDS}",
)
_ANCHOR = re.compile("|".join(f"(?:{anchor})" for anchor in _ANCHORS))
_AFTER_A_WORD = re.compile(rf"\b{_ANNOUNCED}\s+((?:{_NUMBER} ){{0,2}}{_WORDS} {_NUMBER})\b")
_CODE = r"(?:\d{4,6}(?:-\d{3,4})?|\d{3} \d{2}|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})(?![\w-]|[ .]\d)"
"""A postal code."""
_TOWN = rf"{_WORD}(?: (?!{_CODE}){_WORD}){{0,3}}(?: {_CODE})?"
_NEXT = re.compile(rf"(?:[ \t>?]{{0,4}}(?:,|\n)[ \t>?]{{0,6}},? ?| )(?:{_UNIT}|{_CODE}|{_TOWN})")
_LAST = re.compile(rf"(?:{_UNIT}|{_CODE})$")
_LINES = 6
"""How many parts may follow the street: flat, town, region, country, postal code."""


def find_addresses(text: str) -> list[Finding]:
    """Find streets with a house number, boxes and flats, up to the last flat or postal code that follows."""
    findings = [Finding("LOCATION", *match.span(1), SCORE) for match in _AFTER_A_WORD.finditer(text)]
    position = 0
    while (match := _ANCHOR.search(text, position)) is not None:
        position = reach = match.end()
        for _ in range(_LINES):
            if (part := _NEXT.match(text, reach)) is None:
                break
            reach = part.end()
            if _LAST.search(part.group()):
                position = reach
        findings.append(Finding("LOCATION", match.start(), position, SCORE))
    return findings
