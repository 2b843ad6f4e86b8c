"""Finds names of people: by given names, and by what stands before a name, such as "my name is" or "Dr."."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
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
    r"(?i)\b(?:mr|mrs|ms|miss|mister|dr|prof|herr|frau|sir|madam|monsieur|madame|mme|señora?|signora?|sra?|"
    r"professor|senator|captain|detective|inspector|singer|actor|actress|producer)\b"
    r"\.? ?$"
)
ANNOUNCING = (
    r"\b(?:name is|name's|name to|name:|name\?(?: user:)?|named(?: him| her)?|called|calls? me|signed|"
    r"sincerely|regards|directed by|written by|ich hei(?:ß|ss)e|mein name ist|je m'appelle|me llamo|"
    r"mi chiamo|grüßen|cordialement|saludos|(?:mr|mrs|ms|dr)\.)[,:]?"
)
_ANNOUNCED = re.compile(rf"(?i){ANNOUNCING}\s*$")
_ANNOUNCED_LOWER = re.compile(rf"(?i:{ANNOUNCING})\s+([^\W\d_]+(?: [^\W\d_]+)?)")
_CALLED = re.compile(
    r"(?i:my name is|maiden name is|calls me|people call me|ich heiße|mein name ist|me llamo) "
    r"([^\W\d_]{3,25})"
)
_GREETED = re.compile(
    r"(?i)\b(?:dear|hi|hello|hey|hallo|lieber?|bonjour|hola|ciao|i'm|i am|this is|thanks|thank you|cheers|"
    r"ich bin),?[ \n]+$"
)
_RELATED = re.compile(
    r"(?i)\b(?:(?:my|his|her|our|their) (?:\w+ )?(?:colleague|manager|boss|wife|husband|partner|kid|son|"
    r"daughter|friend|sister|brother|mother|father)(?:'s name)?|assistant to|on behalf of|starring|"
    r"(?:speak|talk|spoke|talked) (?:to|with)|married(?: to)?),? $"
)
_LIVES = re.compile(
    r",?(?: (?:lives|was born|is married|is survived)\b|'s (?:wife|husband|son|daughter|kid)\b)"
)
"""What is said of people only."""
_LISTED = r"[^\W\d_]{3,25}"
_LIST = re.compile(
    rf"(?<![\w@./\\<-]){_LISTED}(?:,(?: and)? {_LISTED}){{0,15}},? (?:and|und|et|y|&) {_LISTED}(?! ?[\w@/(])"
    rf"|(?<![\w@./\\<-])[{UPPER}][^\W\d_]{{2,24}} and [{UPPER}][^\W\d_]{{2,24}}(?! [{UPPER}]|[\w@/(])"
)
"""Words in a row with commas and an "and" between them."""
_BLOCK = re.compile(
    rf"(?m)^[>? \t]{{0,6}}({_WORD}(?: {_PARTICLES}{_WORD}){{1,3}})[ \t]*\n(?:[^\n]{{0,60}}\n){{0,2}}"
    rf"[>? \t]{{0,6}}(?:\d{{1,6}}[A-Za-z]? (?:\d{{1,5}} )?[{UPPER}]\w+ [{UPPER}]\w+|P\.? ?O\.? Box \d|"
    rf"(?:PSC|Unit) \d|"
    rf"[{UPPER}]\w+(?:stra(?:ß|ss)e|str\.|weg|gasse|platz) \d)"
)
"""A name above the lines of an address."""
_SMALL = re.compile(r"(?<![\w@./\\<-])([a-zß-ž]{3,24})(?= ([a-z]\.? )?([a-zß-ž]{3,24})(?![\w@/(]))")
_SPEAKER = re.compile(rf"(?m)^[\"> ]{{0,3}}([{UPPER}][^\W\d_]{{2,24}}):(?=\s)")
"""Who speaks, in a chat."""
_FAMILY = re.compile(
    r"[^\W\d_]{3,20}(?:[bdgklmnprstvyz]ov|[ikny]ev|[dklmnpry]ova|[ny]eva|ová|sson|dóttir|ić|wicz|owski|ewski|owska|"
    r"ewska|enko|shvili|adze|idze|oğlu|escu)"
)
"""Family names by their ending."""
_MOST_REPEATED = 32
_JOINS = frozenset(("and", "und"))
_BEFORE_CHARACTERS = 32
_NO_NAMES = """
The This That My Our Your His Her Its Their I A An In On At Is Are Was Will May Can Could Would Should Please
Hello Hi Dear Hey Thanks Thank Regards Bot User Do Does And Or But If When Where What Who Why How Not No Yes
To For Of With From By As It He She We They You
"""
_NO_FAMILY = """
and but from i my the with here so please of at in on who is was or your writing und y et not wrong missing
spelled misspelled incorrect correct written listed shown displayed still being unknown invalid required
already also now
"""
_THINGS = """
Casanova Geneva Lark Moldova Molotov Terranova Alexa Alpha Ansible Apollo Athena Atlas Austin Berlin Bob
Celeste Charlie Charlotte Chad Cisco Claude Cyprus Dallas Dakota Debian Dell Delta Denver Dora Echo Florence
Ford Gentleman Georgia Houston India Israel Jenkins Jira Jordan Juliet Julia Juniper Kali Kenya Lady Lima
Loki London Madrid Malta Mercedes Mike Milan Oracle Orlando Oscar Pandora Paris Porsche Romeo Ruby Sage
Savannah Sierra Siri Sydney Victor Victoria Vienna Virginia Watson Zulu
"""
"""Given names that alone mostly mean products or places."""
_PLACES = """
Agency Agreement Airport Avenue Bridge Bypass Centre Center Co Corp Gift Gifts GmbH Group Hall Handbag
Hospital House Inc Lane Law Limited Lodge Ltd LLC Mall Orchestra Park Pass PLC Regency Republic Road School
Shirt Stadium Station Street Trail Union University
"""
"""What is named after a person, and is none."""
_ALL = """
Admin Agent All Answer Assistant Bot Caller Colleagues Customer Date Error Everybody Everyone Folks From
Helpdesk Note Question Sales Sir Sirs Subject Support System Team There User World
"""
"""Who is greeted or speaks without a name, and other words before a colon."""
_UNITS = "Apt Apartment Box Flat PSC Suite Ste Unit"
"""Words of an address that may follow a name."""
_LETTERED = (
    "Appendix Class Drive Factor Grade Group Level Option Part Plan Section Series Step Team Type Vitamin"
)
"""What is told apart by a letter."""
NO_NAMES, NO_FAMILY, THINGS, PLACES, UNITS, LETTERED, ALL = (
    frozenset(words.split()) for words in (_NO_NAMES, _NO_FAMILY, _THINGS, _PLACES, _UNITS, _LETTERED, _ALL)
)


@cache
def given_names() -> frozenset[str]:
    """Return given names of 80 languages, which ``scripts/names.py`` takes from Faker's lists (MIT licence).
    Names that are mostly words, months, places or nationalities are left out."""
    return _read("given_names.txt")


@cache
def family_names() -> frozenset[str]:
    """Return family names from the same lists."""
    return _read("family_names.txt")


@cache
def _small_given_names() -> frozenset[str]:
    return frozenset(map(str.lower, given_names()))


def _read(name: str) -> frozenset[str]:
    return frozenset((files("tunewheel_redaction") / name).read_text(encoding="utf-8").split())


def find_names(text: str) -> list[Finding]:
    """Find capitalised names, and names in small letters after words such as "my name is"."""
    findings = [*_capitalised(text), *_listed(text)]
    findings += (Finding("PERSON", *match.span(1), SCORE) for match in _BLOCK.finditer(text))
    for match in _ANNOUNCED_LOWER.finditer(text):
        given, _, family = match[1].partition(" ")
        if given.islower() and _is_name(given.title()):
            length = len(given) if not family or family in NO_FAMILY else len(match[1])
            findings.append(Finding("PERSON", match.start(1), match.start(1) + length, SCORE))
    for match in _CALLED.finditer(text):
        if match[1].islower() and match[1] not in NO_FAMILY:
            findings.append(Finding("PERSON", *match.span(1), SCORE))
    small = _small_given_names()
    for match in _SMALL.finditer(text):
        given, initial, family = match.groups()
        if given in small and (_is_name(family.title()) or (initial or "a")[0] not in "ai"):
            findings.append(Finding("PERSON", match.start(), match.end(3), SCORE))
    findings += _again(text, findings)
    return list(dict.fromkeys(findings))


def _again(text: str, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the other places of names that were found once, and of their family names. Of a text with many
    names, only the first count, so that the time is linear in the text."""
    found = list(dict.fromkeys(text[one.start : one.end] for one in findings))[:_MOST_REPEATED]
    found = [name for name in found if any(_is_name(word.title()) for word in name.split())]
    family = {name.rpartition(" ")[2] for name in found if " " in name}
    whole = {*found, *(name for name in family if len(name) > 3 and name[0] in UPPER)}
    if not whole:
        return
    names = "|".join(map(re.escape, sorted(whole, key=lambda name: (-len(name), name))))
    spoken = {name for name in family if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", text)}
    for match in re.finditer(rf"(?<![\w@./\\<-])(?:{names})(?![\w@/\\=(])", text):
        if match.group() not in spoken:
            yield Finding("PERSON", *match.span(), SCORE)


def _capitalised(text: str) -> Iterator[Finding]:
    for run in _RUN.finditer(text):
        words = [(word.group(), run.start() + word.start()) for word in re.finditer(r"\S+", run.group())]
        while words and (words[0][0] in NO_NAMES or _TITLE.match(words[0][0])):
            del words[0]
        unit = next((place for place, (word, _) in enumerate(words) if word.rstrip(".") in UNITS), len(words))
        words = words[:unit]
        if words and words[-1][0].rstrip(".") not in PLACES and (first := _first(text, words)) is not None:
            last, at = words[-1]
            last = re.sub(r"['’]s$", "", last if len(last) == 2 else last.rstrip("."))  # noqa: RUF001
            yield Finding("PERSON", words[first][1], at + len(last), SCORE)


def _listed(text: str) -> Iterator[Finding]:
    """Yield the members of lists of which half are names: "Kónya, Becker and Vasquez", and who speaks in a
    chat."""
    for match in _LIST.finditer(text):
        words = [word for word in re.finditer(_LISTED, match.group()) if word.group() not in _JOINS]
        if not match.group().islower() or len(words) > 2:
            yield from _members([(match.start() + word.start(), word.group()) for word in words])
    yield from _members([(match.start(1), match[1]) for match in _SPEAKER.finditer(text)])


def _members(words: list[tuple[int, str]]) -> Iterator[Finding]:
    is_small = all(word.islower() for _, word in words)
    known = sum(word.title() in given_names() if is_small else _is_name(word) for _, word in words)
    for at, word in words if 2 * known >= len(words) else ():
        if is_small or (word[0] in UPPER and word not in NO_NAMES | ALL):
            yield Finding("PERSON", at, at + len(word), SCORE)


def _first(text: str, words: list[tuple[str, int]]) -> int | None:
    """Return at which of the capitalised ``words`` a name begins; None: they hold no name."""
    at, end = words[0][1], words[-1][1] + len(words[-1][0])
    before = text[max(0, at - _BEFORE_CHARACTERS) : at]
    plain = [_plain(word) for word, _ in words]
    is_related = _RELATED.search(before) is not None or _LIVES.match(text, end) is not None
    is_person = is_related and len(plain[0]) > 2 and not (plain[0] in ALL or words[0][0].isupper())
    if is_person or _TITLE.search(before) or _ANNOUNCED.search(before):
        return 0
    for place, word in enumerate(plain):
        doubtful = words[place][0].isupper() or word in THINGS
        if not (_is_name(word) or word in THINGS):
            continue
        follows = plain[place + 1] if place + 1 < len(plain) else ""
        if not doubtful or _is_name(follows) or (not follows and _GREETED.search(before)):
            return _start(plain, place)
    if len(plain) == 1 and text[end : end + 1] == "," and _GREETED.search(before):  # "Hi Manlio,"
        return None if plain[0] in ALL or plain[0].isupper() else 0
    for place in range(1, len(plain) - 1):  # "Vide A. Persson", "Ravil G Yefimov"
        initial, beside = words[place][0], (words[place - 1][0], words[place + 1][0])
        if len(initial.rstrip(".")) > 1 or min(map(len, beside)) <= 2 or any(map(str.isupper, beside)):
            continue
        if initial[1:] == "." or not (initial in "AI" or beside[0] in LETTERED):
            return place - 1
    return None


def _start(plain: list[str], place: int) -> int:
    """Return where a name begins that has a known word at ``place``: before a family name stands one more
    word, and perhaps an initial."""
    if plain[place] in given_names():
        return place
    while place and len(plain[place - 1]) == 1:
        place -= 1
    return max(place - 1, 0)


def _is_name(word: str) -> bool:
    is_known = word in given_names() or word in family_names() or _FAMILY.fullmatch(word) is not None
    return is_known and word not in THINGS


def _plain(word: str) -> str:
    word = re.sub(r"['’]s$", "", word.rstrip("."))  # noqa: RUF001
    return word.title() if word.isupper() and len(word) > 3 else word
