"""Finds names of people: by given names, and by what stands before a name, such as "my name is" or "Dr."."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files

from tunewheel_redaction.finding import Finding

SCORE = 0.5
UPPER = "".join(chr(code) for code in range(0x41, 0x530) if unicodedata.category(chr(code)) in ("Lu", "Lt"))
"""The capital letters of the Latin, Greek, Cyrillic and Armenian scripts."""
_WORD = rf"[{UPPER}](?:[^\W\d_]|['’\-](?=[^\W\d_]))*(?![\w@/\\=(])(?:(?<=[^\w][{UPPER}])\.)?"  # noqa: RUF001
_PARTICLES = r"(?:(?:de|da|van|von|der|den|la|al|bin|di|du|del|dos|el|ter|le) ){0,2}"
_RUN = re.compile(rf"(?<![\w@./\\<-]){_WORD}(?: {_PARTICLES}{_WORD}){{0,5}}")
"""Capitalised words in a row, with the particles of family names between them."""
_TITLE = re.compile(
    r"(?i)\b(?:mr|mrs|ms|miss|mister|dr|prof|herr|frau|sir|madam|monsieur|madame|mme|señora?|signora?|sra?)\b"
    r"\.? ?$"
)
ANNOUNCING = (
    r"\b(?:name is|name's|name to|name:|name\?(?: user:)?|named(?: him| her)?|called|calls? me|signed|"
    r"sincerely|regards|directed by|written by|ich hei(?:ß|ss)e|mein name ist|je m'appelle|me llamo|"
    r"mi chiamo|grüßen|cordialement|saludos)[,:]?"
)
_ANNOUNCED = re.compile(rf"(?i){ANNOUNCING}\s*$")
_ANNOUNCED_LOWER = re.compile(rf"(?i:{ANNOUNCING})\s+([^\W\d_]+(?: [^\W\d_]+)?)")
_GREETED = re.compile(
    r"(?i)\b(?:dear|hi|hello|hey|hallo|lieber?|bonjour|hola|ciao|i'm|i am|this is|thanks|thank you|cheers|"
    r"ich bin|colleague|manager|boss|wife|husband|partner|kid|son|daughter|friend|sister|brother),?[ \n]+$"
)
_BEFORE_CHARACTERS = 32
_NO_NAMES = """
The This That My Our Your His Her Its Their I A An In On At Is Are Was Will May Can Could Would Should Please
Hello Hi Dear Hey Thanks Thank Regards Bot User Do Does And Or But If When Where What Who Why How Not No Yes
To For Of With From By As It He She We They You
"""
_NO_FAMILY = "and but from i my the with here so please of at in on who is was or your writing und y et"
_THINGS = """
Alexa Alpha Ansible Apollo Athena Atlas Austin Berlin Bob Celeste Charlie Charlotte Chad Cisco Claude Cyprus
Dallas Dakota Debian Dell Delta Denver Dora Echo Florence Ford Gentleman Georgia Houston India Israel Jenkins
Jira Jordan Juliet Julia Juniper Kali Kenya Lady Lima Loki London Madrid Malta Mercedes Mike Milan Oracle
Orlando Oscar Pandora Paris Porsche Romeo Ruby Sage Savannah Sierra Siri Sydney Victor Victoria Vienna
Virginia Watson Zulu
"""
"""Given names that alone mostly mean products or places."""
_PLACES = (
    "Agreement Airport Bridge Centre Center Hall Hospital House Law Park School Stadium Station University"
)
"""What is named after a person, and is none."""
NO_NAMES, NO_FAMILY, THINGS, PLACES = (
    frozenset(words.split()) for words in (_NO_NAMES, _NO_FAMILY, _THINGS, _PLACES)
)


@cache
def given_names() -> frozenset[str]:
    """Return given names of 80 languages, which ``scripts/given_names.py`` takes from Faker's lists (MIT
    licence). Names that are mostly words, months or nationalities are left out."""
    return frozenset((files("tunewheel_redaction") / "given_names.txt").read_text(encoding="utf-8").split())


def find_names(text: str) -> list[Finding]:
    """Find capitalised names, and names in small letters after words such as "my name is"."""
    findings: list[Finding] = []
    for run in _RUN.finditer(text):
        words = [(word.group(), run.start() + word.start()) for word in re.finditer(r"\S+", run.group())]
        while words and (words[0][0] in NO_NAMES or _TITLE.match(words[0][0])):
            del words[0]
        if words and words[-1][0] not in PLACES and (first := _first(text, words)) is not None:
            last, at = words[-1]
            last = re.sub(r"['’]s$", "", last if len(last) == 2 else last.rstrip("."))  # noqa: RUF001
            findings.append(Finding("PERSON", words[first][1], at + len(last), SCORE))
    for match in _ANNOUNCED_LOWER.finditer(text):
        given, _, family = match[1].partition(" ")
        if given.islower() and given.title() in given_names():
            length = len(given) if not family or family in NO_FAMILY else len(match[1])
            findings.append(Finding("PERSON", match.start(1), match.start(1) + length, SCORE))
    return findings


def _first(text: str, words: list[tuple[str, int]]) -> int | None:
    """Return at which of the capitalised ``words`` a name begins; None: they hold no name."""
    at = words[0][1]
    before = text[max(0, at - _BEFORE_CHARACTERS) : at]
    if _TITLE.search(before) or _ANNOUNCED.search(before):
        return 0
    plain = [_plain(word) for word, _ in words]
    for place, word in enumerate(plain):
        if word not in given_names():
            continue
        follows = plain[place + 1] if place + 1 < len(plain) else ""
        doubtful = words[place][0].isupper() or word in THINGS
        if not doubtful or follows in given_names() or (not follows and _GREETED.search(before)):
            return place
    for place in range(1, len(plain) - 1):  # "Vide A. Persson"
        if words[place][0][1:] == "." and min(len(plain[place - 1]), len(plain[place + 1])) > 2:
            return place - 1
    return None


def _plain(word: str) -> str:
    word = re.sub(r"['’]s$", "", word.rstrip("."))  # noqa: RUF001
    return word.title() if word.isupper() and len(word) > 3 else word
