"""Answers that say what a document said before it changed.

An answer is stale where it holds a number, a name or an identifier that stands in the old passage and neither
in the new version of its document nor in the question. One that was changed in ordinary words alone cannot be
told, and does not count. Documents are compared by what they say: one that was renamed is as it was.
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
    """What tells answers by the old version of a document from answers by the new one."""

    old: frozenset[str]
    """Numbers, names and identifiers of the old passage alone."""
    new: frozenset[str]
    """Those of the new version alone."""

    def is_stale(self, answer: str) -> bool:
        return not self.old.isdisjoint(_said(answer))

    def is_current(self, answer: str) -> bool:
        """Tell whether an answer holds what only the new version says, and nothing that only the old does."""
        said = _said(answer)
        return self.old.isdisjoint(said) and not self.new.isdisjoint(said)


class Changes:
    """The documents of index version ``before``, held against those of ``now``."""

    def __init__(self, before: Index, now: Index) -> None:
        self._before, self._now = before, now

    @property
    def before_id(self) -> str:
        return self._before.manifest.index_id

    @cached_property
    def documents(self) -> frozenset[str]:
        """Those whose text no document of ``now`` has."""
        then, now = self._said
        standing = set(now.values())
        return frozenset(name for name, said in then.items() if said not in standing)

    def name_now(self, gold: Passage) -> str | None:
        """Return what ``now`` calls the document of ``gold``, a passage of the old version: the same, else
        the first that holds the passage; None: it was withdrawn."""
        now = self._said[1]
        if gold.document_id in now:
            return gold.document_id
        return next((name for name, said in now.items() if any(gold.text in one for one in said)), None)

    def of(self, example: ChatExample, gold: Passage) -> Change | None:
        """Return what became of the document that ``gold``, a passage of the old version, is part of; None:
        it is as it was."""
        if gold.document_id not in self.documents:
            return None
        old, new = self._searched
        asked = _named(said_before(example.messages[:-1]))
        known = _named("\n".join(new.get(self.name_now(gold) or "", ())))
        return Change(
            frozenset(_named(gold.searched) - known - asked),
            frozenset(known - _named("\n".join(old[gold.document_id])) - asked),
        )

    @cached_property
    def _said(self) -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]:
        """The old passages and the new, without titles: those may be made of a document's name."""
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
    """Every term, for a sentence may begin with the name."""
    said = spoken(answer)
    return terms_of(said) | figures_in("\n".join(said))
