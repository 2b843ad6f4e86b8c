"""Planted contradictions and true paraphrases of sentences of the public procedures (``shared/data/sop_*``).

A claim is a sentence of a document, said in other words: synonyms, numbers as words, clauses in another
order, an opening of its own. A contradiction is such a claim after one fact was changed. Claims of both sorts
come from the same sentences, so that nothing but the changed fact tells them apart.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WINDOW = 2
"""A passage is a sentence with this many sentences of the document before and after it."""
UNITS = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
_UNIT = re.compile(
    r"(?P<number>\b\d+|\b(?:two|three|four|five|six|seven|ten))(?P<gap>[ -])"
    r"(?P<unit>second|minute|hour|day|week|month|year)(?P<plural>s?)\b"
)
_NUMBER = re.compile(r"(?<![\w.,-])\d{1,4}(?![\w.,-]*\d)(?=[ %-])")
_VERB = re.compile(r"\b(must|should|shall|can|will|may|is|are|was|were|has been|have been)\b(?! not|n't)")
_NOT = re.compile(r"\b(must|should|shall|can|will|may|is|are|was|were|do|does|did)(?: not|n't|not) ")
_NOUN = re.compile(
    r"\b(?:the|a|an|our|your|all|any|each) ([a-z][a-z-]{3,})\b"
    r"(?= (?:is|are|to|of|in|on|for|and|that|will|must|should|can|has|have|with|by|from)|[,.])",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?P<word>if|when|unless|before|after|until|once|whenever)\b (?P<rest>[^,.;]{8,90})(?=[,.])",
    re.IGNORECASE,
)
_OPPOSITE = {"if": "unless", "when": "before", "unless": "if", "before": "after", "after": "before",
             "until": "after", "once": "before", "whenever": "unless"}  # fmt: skip
_OPENINGS = (
    "According to the document, ", "As documented, ", "In short, ", "Yes: ", "Please note that ",
    "The rule says that ", "", "", "", "",
)  # fmt: skip
_SYNONYMS = """
ensure = make sure; required = needed; requires = needs; require = need; use = employ; used = employed;
utilize = use; utilizes = uses; immediately = at once; problem = issue; issue = problem; determine = find
out; verify = check; check = verify; notify = inform; notified = informed; additional = further; create =
make; created = made; begin = start; start = begin; customers = clients; customer = client; employees =
staff members; obtain = get; provide = give; provides = gives; provided = given; remove = take away; removed
= taken away; occurs = happens; occur = happen; large = big; error = fault; errors = faults; located =
found; perform = carry out; performed = carried out; attempt = try; sufficient = enough; multiple = several;
several = multiple; request = ask for; needs = requires; need = require; show = display; shows = displays;
fix = repair; incident = event; currently = at present; potential = possible; possible = potential;
approximately = about; terminate = end; reviewed = looked over; retained = kept; maintained = kept;
documented = written down; updated = brought up to date; fails = breaks; failed = broken; running = in
operation; large amount = lot; discuss = talk about; assess = judge; identify = recognise
"""
_PHRASES = """
at least = no fewer than; more than = over; less than = under; no later than = at the latest after; must not
= may not; must = has to; should = ought to; do not = don't; is not = isn't; are not = aren't; cannot =
can't; in order to = to; due to = because of; such as = for example; prior to = before; shall = must
"""
_WORDS = {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 10: "ten", 12: "twelve", 15: "fifteen",
    24: "twenty-four", 30: "thirty", 48: "forty-eight", 60: "sixty", 90: "ninety",
}  # fmt: skip


def _pairs(text: str) -> list[tuple[str, str]]:
    found = (pair.partition("=") for pair in " ".join(text.split()).split(";"))
    return [(one.strip(), other.strip()) for one, _, other in found]


_OTHER_WORDS, _REPHRASED = dict(_pairs(_SYNONYMS)), _pairs(_PHRASES)


class Claim(NamedTuple):
    kind: str
    passage: str
    said: str
    is_true: bool


def claims(*, half: int, each: int, seed: int) -> list[Claim]:
    """Return ``each`` contradictions of every kind, and as many paraphrases of sentences of the same sort,
    from one half of the documents (0 or 1, by the hash of the path)."""
    rng = random.Random(seed)
    places = [
        (sentences, at)
        for path, sentences in documents()
        if int(hashlib.sha256(path.encode()).hexdigest(), 16) % 2 == half
        for at in range(len(sentences))
    ]
    rng.shuffle(places)
    found: list[Claim] = []
    used: set[tuple[str, bool]] = set()
    for kind, change in KINDS.items():
        wanted = [False, True] * each
        for sentences, at in [*places, *reversed(places)]:
            if not wanted:
                break
            true = sentences[at]
            passage = " ".join(sentences[max(0, at - WINDOW) : at + WINDOW + 1])
            others = [one for n, one in enumerate(sentences) if n != at]
            changed = change(true, others, rng)
            if changed is None or changed == true or (true, wanted[-1]) in used:
                continue
            is_true = wanted.pop()
            used.add((true, is_true))
            found.append(Claim(kind, passage, said_otherwise(true if is_true else changed, rng), is_true))
        if wanted:
            raise SystemExit(f"too few sentences for {kind}: {len(wanted)} claims of {2 * each} are missing")
    return found


def documents() -> Iterator[tuple[str, list[str]]]:
    """Yield path and sentences of every document, without headings, tables, code and markup."""
    for path in sorted(DATA.glob("sop_*/**/*.md")):
        text = re.sub(r"```.*?```|~~~.*?~~~", "", path.read_text("utf-8", "replace"), flags=re.S)
        found: list[str] = []
        for part in re.split(r"\n\s*\n|\n(?=\s*(?:[*+-]|\d+\.)\s)", text):
            plain = re.sub(r"^\s*(?:[*+-]|\d+\.)\s+", "", part.strip())
            if plain.startswith(("#", "|", "---")) or "{{" in plain:
                continue
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
            plain = " ".join(re.sub(r"[*_`>]|<[^>]+>", "", plain).split())
            for one in re.split(r"(?<=[.!?])\s+(?=[A-Z])", plain):
                if 7 <= len(one.split()) <= 40 and one[0].isupper() and one[-1] == ".":
                    found.append(one)
        if len(found) > 1:
            yield str(path.relative_to(DATA)), list(dict.fromkeys(found))


def said_otherwise(sentence: str, rng: random.Random) -> str:
    """Return the sentence in other words, with the same meaning."""
    said = sentence
    chosen = [word for word in _OTHER_WORDS if re.search(rf"\b{word}\b", said)]
    for word in rng.sample(chosen, min(len(chosen), rng.randint(0, 3))):
        said = re.sub(rf"\b{word}\b", _OTHER_WORDS[word], said)
    for words, other in _REPHRASED:
        if rng.random() < 0.4:
            said = re.sub(rf"\b{words}\b", other, said)
    if rng.random() < 0.3:
        said = re.sub(r"\b\d+\b(?=[ -][a-z])", lambda one: _WORDS.get(int(one[0]), one[0]), said)
    if rng.random() < 0.25:
        said = re.sub(r" \([^)]*\)", "", said)
    if rng.random() < 0.5:
        said = _turned(said)
    opening = rng.choice(_OPENINGS)
    return opening + (said[0].lower() + said[1:] if opening and not said[:2].isupper() else said)


def _turned(said: str) -> str:
    """Return the sentence with its condition at the other end."""
    first = re.fullmatch(r"((?:If|When|Once|After|Before|Unless) [^,]+), ([^,;]+)\.", said)
    if first:
        return f"{first[2][0].upper()}{first[2][1:]} {first[1][0].lower()}{first[1][1:]}."
    last = re.fullmatch(r"([^,;]+?) ((?:if|when|once|after|before|unless) [^,;]+)\.", said)
    return f"{last[2][0].upper()}{last[2][1:]}, {last[1][0].lower()}{last[1][1:]}." if last else said


Change = Callable[[str, list[str], random.Random], str | None]


def _other_number(said: str, others: list[str], rng: random.Random) -> str | None:
    found = list(_NUMBER.finditer(said))
    if not found:
        return None
    one = rng.choice(found)
    near = [number for other in others for number in _NUMBER.findall(other) if number != one[0]]
    number = (
        rng.choice(near)
        if near and rng.random() < 0.5
        else str(int(int(one[0]) * rng.choice((2, 3, 0.5)) + 1))
    )
    return said[: one.start()] + number + said[one.end() :]


def _negated(said: str, others: list[str], rng: random.Random) -> str | None:
    if _NOT.search(said):
        return _NOT.sub(r"\1 ", said, count=1)
    found = list(_VERB.finditer(said))
    if not found:
        return None
    one = rng.choice(found)
    return said[: one.end()] + rng.choice((" not", " not", " never")) + said[one.end() :]


def _swapped(said: str, others: list[str], rng: random.Random) -> str | None:
    nouns = list({one[1].lower(): one for one in _NOUN.finditer(said)}.values())
    if len(nouns) < 2:
        return None
    one, two = sorted(rng.sample(nouns, 2), key=lambda noun: noun.start(1))
    return said[: one.start(1)] + two[1] + said[one.end(1) : two.start(1)] + one[1] + said[two.end(1) :]


def _other_unit(said: str, others: list[str], rng: random.Random) -> str | None:
    found = list(_UNIT.finditer(said))
    if not found:
        return None
    one = rng.choice(found)
    unit = rng.choice([name for name in UNITS if name != one["unit"] + "s"])
    unit = unit if one["plural"] else unit[:-1]
    return said[: one.start()] + one["number"] + one["gap"] + unit + said[one.end() :]


def _other_condition(said: str, others: list[str], rng: random.Random) -> str | None:
    found = _CONDITION.search(said)
    if found is None:
        return None
    elsewhere = [one["rest"] for other in others for one in _CONDITION.finditer(other)]
    if elsewhere and rng.random() < 0.7:
        return said[: found.start("rest")] + rng.choice(elsewhere) + said[found.end("rest") :]
    word = _OPPOSITE[found["word"].lower()]
    word = word.capitalize() if found["word"][0].isupper() else word
    return said[: found.start()] + word + said[found.end("word") :]


KINDS: dict[str, Change] = {
    "wrong unit": _other_unit,
    "number": _other_number,
    "wrong condition": _other_condition,
    "swapped subjects": _swapped,
    "negation": _negated,
}
