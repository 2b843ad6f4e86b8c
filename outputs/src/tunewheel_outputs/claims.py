"""Compares what an answer claims with the sentences that it may rest on, by words, numbers and negations.

Each sentence of the answer is a claim, or each part of it that has a number of its own. A claim is compared
with every sentence of the texts. A claim contradicts the sentence that has most of its words if it gives
another number for the same thing, or denies what the sentence affirms.

This is no model of meaning. A synonym counts as a word of the answer's own, and a contradiction that needs
neither a number nor a negation only lowers the figure. Number words are known in English, negations in
English and Chinese.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest

from tunewheel_outputs.texts import UNSPACED

ELSEWHERE = 0.25
"""What a word counts that stands in the texts, but not in the sentence that the claim rests on."""
_TOKEN = re.compile(rf"\d+(?:[.,:/]\d+)*|[{UNSPACED}]|(?:(?![{UNSPACED}])[^\W\d_])+(?:'[^\W\d_]+)?|%")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[\u3002\uff01\uff1f\uff1b])|\n+")
_PART = re.compile(r"[,\uff0c\u3001]\s*(?!\d)|\s+(?:and|but|while|whereas)\s+")
_ARTICLES = """
a an the is are am was were be been being it its this that these those to of in on at by for with as and or so
our your their his her we you they he she i me us them my there here do does did has have had will would shall
which who what than then also only just please yes can could may might must should ought need needs
"""
_COMMON = frozenset(_ARTICLES.split())
_NOTHING = (
    "no not never neither nor none nobody nothing without cannot unless \u4e0d \u6ca1 \u672a \u65e0 \u7121"
)
_NEGATORS = frozenset(_NOTHING.split())
_COMPARED = frozenset(("more", "less", "fewer", "later", "longer", "sooner", "earlier"))
_NAMED = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
"""
_NUMBERS = dict(zip(_NAMED.split(), [*range(2, 21), *range(30, 91, 10)], strict=True))
_TENS = frozenset(str(number) for number in range(20, 91, 10))
_LISTED = re.compile(r"^\s*\d+[.)]\s+")
SCOPE = 2
"""How many words after a negation are denied."""
CUT = 0.8
"""What a claim keeps for each cut in the order of its words after the first."""


@dataclass(frozen=True, slots=True)
class Figure:
    number: str
    before: str
    """The word before the number, or ""."""
    after: tuple[str, ...]
    """The two words after the number: the first is its unit."""


@dataclass(frozen=True)
class Sentence:
    words: tuple[str, ...]
    """Stems in their order, without numbers and common words."""
    figures: tuple[Figure, ...]
    denied: tuple[tuple[str, ...], ...]
    """For each negation the words after it."""

    @cached_property
    def distinct(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def places(self) -> dict[str, int]:
        """The places of the words that occur once."""
        times = Counter(self.words)
        return {word: at for at, word in enumerate(self.words) if times[word] == 1}


def supported(answer: str, texts: Sequence[str], asked: str = "") -> float:
    """Return how far ``texts`` support the claims of ``answer``, from 0 to 1: the share of the claims' words
    that stand in the sentences that they rest on, in their order. 0: a claim contradicts its sentence, or has
    a number that is in no text. Words of the question ``asked`` count as supported."""
    sentences = dict.fromkeys(one for text in texts for one in _SENTENCE.split(text))
    whole = [_sentence(one) for one in sentences]
    parts = [part for one in sentences for part in _parts(one)]
    anywhere = frozenset(word for sentence in whole for word in sentence.words)
    question = _sentence(asked)
    claimed = (one for one in _SENTENCE.split(answer) if not one.endswith(("?", "\uff1f")))
    claims = Counter(part for one in claimed for part in _parts(one) if part.words)
    total = found = 0.0
    for claim, times in claims.items():
        share = _support(claim, parts if len(claim.figures) == 1 else whole, anywhere, question)
        if not share or not all(_stands(one, whole, question) for one in claim.figures):
            return 0.0
        total += times * len(claim.words)
        found += times * len(claim.words) * share
    return found / total if total else 1.0


def _support(
    claim: Sentence, sources: Sequence[Sentence], anywhere: frozenset[str], question: Sentence
) -> float:
    """Return the share of a claim's words in the sentence that it rests on; 0: that sentence contradicts
    it."""
    agreeing = contradicted = 0.0
    only_asked = question.distinct - anywhere
    for source in sources:
        there = source.distinct | only_asked
        counted = (1.0 if word in there else ELSEWHERE if word in anywhere else 0.0 for word in claim.words)
        share = sum(counted) / len(claim.words)
        if _contradicts(claim, source, question):
            contradicted = max(contradicted, share)
        else:
            agreeing = max(agreeing, share * _in_order(claim, source))
    return agreeing if agreeing >= contradicted else 0.0


def _stands(figure: Figure, sources: Sequence[Sentence], question: Sentence) -> bool:
    """Return whether a number is in a text for the same thing, or in the question."""
    shown = (other for source in sources for other in source.figures)
    return any(other.number == figure.number and _same_thing(figure, other) for other in shown) or any(
        other.number == figure.number for other in question.figures
    )


def _contradicts(claim: Sentence, source: Sentence, question: Sentence) -> bool:
    for one in claim.figures:
        if any(other.number == one.number and _is_name(one, other) for other in question.figures):
            continue
        same = [other for other in source.figures if other.number == one.number]
        if same and not any(_same_thing(one, other) for other in same):
            return True
        if not same and any(_rivals(one, other) for other in source.figures):
            return True
    return _denies(claim, source) or _denies(source, claim)


def _same_thing(one: Figure, other: Figure) -> bool:
    return not one.after or not other.after or one.after[0] in other.after or other.after[0] in one.after


def _rivals(one: Figure, other: Figure) -> bool:
    """Return whether two numbers count the same thing, so that only one of them can be right."""
    if not one.after or not other.after:
        return one.after == other.after and one.before == other.before
    return _same_thing(one, other)


def _is_name(one: Figure, asked: Figure) -> bool:
    """Return whether a number names a thing of the question, as in "order 77"."""
    return bool(one.before) and one.before == asked.before and one.after[:1] != asked.after[:1]


def _denies(one: Sentence, other: Sentence) -> bool:
    """Return whether ``one`` denies a word that ``other`` affirms."""
    denied = {word for words in other.denied for word in words}
    return any(words[0] in other.distinct and denied.isdisjoint(words) for words in one.denied if words)


def _in_order(claim: Sentence, source: Sentence) -> float:
    """Return 1 if the words shared with the source stand in its order, or in its order after one cut, as when
    a clause moves to the other end. It is less for each further cut."""
    places = [source.places[word] for word in claim.places if word in source.places]
    falls = sum(later < earlier for earlier, later in pairwise([*places, *places[:1]]))
    return CUT ** max(0, falls - 1)


def _parts(sentence: str) -> list[Sentence]:
    """Return the parts of a sentence that have a number of their own. A part without one belongs to the part
    before it."""
    found: list[str] = []
    for part in _PART.split(sentence):
        if found and not (_has_number(part) and _has_number(found[-1])):
            found[-1] += f", {part}"
        else:
            found.append(part)
    return [_sentence(one) for one in found]


def _has_number(text: str) -> bool:
    return any(token[0].isdigit() for token in _tokens(text))


def _sentence(text: str) -> Sentence:
    words: list[str] = []
    figures: list[tuple[str, int]] = []
    negations: list[int] = []
    tokens = _tokens(text)
    for token, following in zip_longest(tokens, tokens[1:]):
        if token[0].isdigit():
            figures.append((token, len(words)))
        elif token in _NEGATORS or token.endswith("n't"):
            if following not in _COMPARED:  # "no more than" denies nothing
                negations.append(len(words))
        elif token not in _COMMON:
            words.append(_stem(token))
    ends = [at for _, at in figures[1:]] + [len(words)]
    return Sentence(
        words=tuple(words),
        figures=tuple(
            # two numbers in a row, as in "5 or 10 minutes", have one unit
            Figure(
                number,
                words[at - 1] if at else "",
                tuple(words[at : at + 2 if end == at else min(end, at + 2)]),
            )
            for (number, at), end in zip(figures, ends, strict=False)
        ),
        denied=tuple(
            tuple(word for word in words[at : at + 2 * SCOPE] if not word.endswith("ly"))[:SCOPE]
            for at in negations
        ),
    )


def _tokens(text: str) -> list[str]:
    """Return words and numbers. A number that is written as a word is returned in digits."""
    found: list[str] = []
    for token in _TOKEN.findall(_LISTED.sub("", text).lower().replace("\u2019", "'")):
        number = _NUMBERS.get(token)
        if number is not None and number < 10 and found and found[-1] in _TENS:
            found[-1] = str(int(found[-1]) + number)
        elif number is not None:
            found.append(str(number))
        else:
            found.append(
                token.replace(",", "") if token[0].isdigit() else "percent" if token == "%" else token
            )
    return found


def _stem(word: str) -> str:
    for ending in ("'s", "ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return f"{word[:-1]}i" if word.endswith("y") else word.removesuffix("e") if len(word) > 3 else word
