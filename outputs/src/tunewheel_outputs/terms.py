"""Finds identifiers, names and amounts in a text, which a model must not make up.

A term is a word, or words and digits joined by signs (``LM-0042``, ``3.5``, ``acme.com/help``). A term is a
name in three cases: it has a digit and is longer than the digit; it has capitals inside (``iPhone``,
``PDF``); it begins with a capital inside a sentence. Languages such as German capitalise all nouns; ordinary
nouns are then found in the training corpus. A single digit is a number in a list and no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TERM = re.compile(r"[^\W_]+(?:[-./:,'\u2019@#&][^\W_]+)*")
_ENDS_SENTENCE = frozenset('.!?:;\n*-("|#>\u2022\u2013\u2014\u201c\u201d\u201e\u00ab\u00bb')


def terms_of(texts: Iterable[str]) -> set[str]:
    """Return every term in ``texts``, case folded, and the parts of joined terms."""
    found: set[str] = set()
    for text in texts:
        for term in map(str.casefold, _TERM.findall(text)):
            found.add(term)
            if not term.isalnum():
                found.update(_parts(term))
    return found


def names_in(text: str) -> set[str]:
    """Return the terms in ``text`` that are names, case folded."""
    found: set[str] = set()
    for match in _TERM.finditer(text):
        term = match.group()
        if _is_name(term) or (term[0].isupper() and len(term) > 1 and not _begins(text, match.start())):
            found.add(term.casefold())
    return found


def _is_name(term: str) -> bool:
    if any(map(str.isdigit, term)):
        return len(term) > 1
    # Most words are all lower case; the first test sorts them out quickly.
    return term != term.lower() and any(part[1:] != part[1:].lower() for part in _parts(term))


def _parts(term: str) -> list[str]:
    return [part for part in re.split(r"[\W_]+", term) if part]


def _begins(text: str, start: int) -> bool:
    """Return whether a sentence begins at ``start``: at the beginning of the text, or after the end of a
    sentence."""
    before = text[max(0, start - 20) : start].rstrip(" \t")
    return (start <= 20 and not before) or before[-1:] in _ENDS_SENTENCE
