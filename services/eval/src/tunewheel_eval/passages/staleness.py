"""Finds stale answers: those that repeat what a document said before it changed.

An answer is stale if it has a number, a name or an identifier that is in the old passage, but neither in the
new version of the document nor in the question. Changes in ordinary words alone cannot be recognised, and do
not count. Documents are compared by their text, so a renamed document is unchanged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_outputs.grounding import figures_in
from tunewheel_outputs.terms import names_in, terms_of
from tunewheel_outputs.texts import said_before, spoken
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import Index


@dataclass(frozen=True, slots=True)
class Change:
    """The terms that tell an answer by the old version of a document from one by the new version."""

    old: frozenset[str]
    """Numbers, names and identifiers that only the old passage has."""
    new: frozenset[str]
    """Those that only the new version has."""

    def is_stale(self, answer: str) -> bool:
        return not self.old.isdisjoint(_said(answer))

    def is_current(self, answer: str) -> bool:
        """Return whether an answer has a term of the new version only, and none of the old version only."""
        said = _said(answer)
        return self.old.isdisjoint(said) and not self.new.isdisjoint(said)


class Changes:
    """The changes of documents from index version ``before`` to ``now``."""

    def __init__(self, before: Index, now: Index) -> None:
        self._before, self._now = before, now

    @property
    def before_id(self) -> str:
        return self._before.manifest.index_id

    @cached_property
    def documents(self) -> frozenset[str]:
        """The documents of ``before`` whose text no document of ``now`` has."""
        then, now = self._said
        standing = set(now.values())
        return frozenset(name for name, said in then.items() if said not in standing)

    def name_now(self, gold: Passage) -> str | None:
        """Return the name in ``now`` of the document of ``gold``, a passage of the old version. If no
        document has the same name, return the first that holds the passage; None: it was withdrawn."""
        now = self._said[1]
        if gold.document_id in now:
            return gold.document_id
        return next((name for name, said in now.items() if any(gold.text in one for one in said)), None)

    def of(self, example: ChatExample, gold: Passage) -> Change | None:
        """Return the change of the document of ``gold``, a passage of the old version; None: it is
        unchanged."""
        if gold.document_id not in self.documents:
            return None
        old, new = self._searched
        asked = _named(said_before(example.messages[:-1]))
        current = _named("\n".join(new.get(self.name_now(gold) or "", ())))
        return Change(
            frozenset(_named(gold.searched) - current - asked),
            frozenset(current - _named("\n".join(old[gold.document_id])) - asked),
        )

    @cached_property
    def _said(self) -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]:
        """Return the old and the new passages by document, without titles, which may be made from file
        names."""
        text = attrgetter("text")
        return _by_document(self._before, text), _by_document(self._now, text)

    @cached_property
    def _searched(self) -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]:
        searched = attrgetter("searched")
        return _by_document(self._before, searched), _by_document(self._now, searched)


def _by_document(index: Index, text_of: Callable[[Passage], str]) -> dict[str, tuple[str, ...]]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for passage in index.rows:
        texts[passage.document_id].append(text_of(passage))
    return {name: tuple(several) for name, several in texts.items()}


def _named(text: str) -> set[str]:
    return figures_in(text) | names_in(text)


def _said(answer: str) -> set[str]:
    """Return all terms, including those at the beginning of a sentence, which may be a name."""
    said = spoken(answer)
    return terms_of(said) | figures_in("\n".join(said))
