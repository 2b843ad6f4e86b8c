"""Checks whether an answer is grounded in a text, or contains words, numbers and names that the text
lacks."""

from __future__ import annotations

import re

from tunewheel_outputs.texts import UNSPACED, spoken, words_of

_WORD = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[^\W\d_]){{3,}}")
_FIGURE = re.compile(r"\d+(?:[.,:/-]\d+)*")
_SHORTEST_STATEMENT = 3
_NAME = re.compile(r"(?<![.!?:\n]\s)(?<!^)\b[^\W\d_a-zß-öø-ÿ][\w-]{2,}")
_COMMON_WORDS = """
about after all also and any are because been before being between both can could does done during each every
for from had has have here how into its may must not only onto our over shall should such than that the their
them then there these they this those under use used using was were what when where which while who why will
with would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def statements(answer: str) -> str:
    """Return the statements of an answer as one text. For JSON these are the values of three words or more,
    since labels and class names state nothing. For free text it is the whole text. "" where there are
    none."""
    said = spoken(answer)
    if said == [answer]:
        return answer
    return "\n".join(text for text in said if len(words_of(text)) >= _SHORTEST_STATEMENT)


def figures_in(text: str) -> set[str]:
    """Return the numbers in ``text`` as they are written, including single digits."""
    return set(_FIGURE.findall(text))


def grounding(answer: str, section: str) -> float:
    """Return the share, from 0 to 1, of the answer's words that occur in the section. Common words are not
    counted."""
    words = set(_WORD.findall(answer.casefold())) - _COMMON
    if not words:
        return 1.0
    known = section.casefold()
    return sum(word in known or _stem(word) in known for word in words) / len(words)


def invented(answer: str, section: str) -> str | None:
    """Return the first number or name in the answer that does not occur in the section; None: there is
    none."""
    figures = figures_in(section)
    known = section.casefold()
    for figure in _FIGURE.findall(answer):
        if figure not in figures:
            return figure
    for name in _NAME.findall(answer):
        if name.casefold() not in known:
            return name
    return None


def _stem(word: str) -> str:
    """Return the beginning of a word by which its other forms are recognised: all but the last three letters,
    and at least four."""
    return word[: max(4, len(word) - 3)]
