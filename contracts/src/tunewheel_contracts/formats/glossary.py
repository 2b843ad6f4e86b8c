"""A project's glossary: terms that answers must use, must not use, or should no longer use."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Strict

_WORD = re.compile(r"[^\W_]+")
Term = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


def glossary_words(text: str) -> list[str]:
    """Return the words of ``text``, as terms are compared: letters and digits, with case folded."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


class TermFinder:
    """Finds terms in texts as whole words. The time is linear in the text (a term has at most 100 words)."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._root: dict[str, Any] = {}
        for term in terms:
            node = self._root
            for word in glossary_words(term):
                node = node.setdefault(word, {})
            node.setdefault("", []).append(term)  # "" marks the end of a term, since no word is empty.

    def find(self, text: str) -> set[str]:
        """Return the terms that occur in ``text``, in the form in which they were passed."""
        words = glossary_words(text) if self._root else []
        found: set[str] = set()
        for start in range(len(words)):
            node = self._root
            for word in words[start : start + 100]:
                if word not in node:
                    break
                node = node[word]
                found.update(node.get("", ()))
        return found


class RequiredTerm(Strict):
    term: Term
    when: Term | None = None
    """The term is required only if ``when`` occurs in the question; null: in every answer."""


class DeprecatedTerm(Strict):
    term: Term
    use: Term
    """The term to use instead."""


class Glossary(Strict):
    """Terms for answers. They are found as whole words, ignoring case."""

    required: Annotated[tuple[RequiredTerm, ...], Field(max_length=1_000)] = ()
    forbidden: Annotated[tuple[Term, ...], Field(max_length=1_000)] = ()
    deprecated: Annotated[tuple[DeprecatedTerm, ...], Field(max_length=1_000)] = ()
    """Terms that should be replaced by another term."""

    @property
    def unwanted(self) -> tuple[str, ...]:
        """Forbidden and deprecated terms."""
        return (*self.forbidden, *(one.term for one in self.deprecated))

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        for field, term in self._fields():
            if not glossary_words(term):
                raise inconsistent(field, f"{term!r} has no letter and no digit; give a word")
        self._says_each_once()
        unwanted = TermFinder(self.unwanted)
        for number, one in enumerate(self.required):
            for term in unwanted.find(one.term):
                raise inconsistent(
                    f"required.{number}.term",
                    f"{one.term!r} is required, but contains {term!r}, which is not to be used; remove one",
                )
        for number, old in enumerate(self.deprecated):
            for term in unwanted.find(old.use):
                raise inconsistent(
                    f"deprecated.{number}.use",
                    f"{old.use!r} contains {term!r}, which is not to be used; give another term",
                )
        return self

    def _says_each_once(self) -> None:
        forbidden = {tuple(glossary_words(term)) for term in self.forbidden}
        for number, old in enumerate(self.deprecated):
            words = tuple(glossary_words(old.term))
            if words in forbidden:
                raise inconsistent(
                    f"deprecated.{number}.term",
                    f"{old.term!r} is also forbidden, or has two replacements; keep one",
                )
            forbidden.add(words)

    def _fields(self) -> Iterator[tuple[str, str]]:
        for number, one in enumerate(self.required):
            yield f"required.{number}.term", one.term
            if one.when is not None:
                yield f"required.{number}.when", one.when
        for number, term in enumerate(self.forbidden):
            yield f"forbidden.{number}", term
        for number, old in enumerate(self.deprecated):
            yield f"deprecated.{number}.term", old.term
            yield f"deprecated.{number}.use", old.use
