"""Answers that say what a document said before it changed.

An answer is stale where it holds a number, a name or an identifier that stands in the old passage and neither
in the new version of its document nor in the question. One that was changed in ordinary words alone cannot be
told, and does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_outputs.grounding import figures_in
from tunewheel_outputs.terms import names_in, terms_of
from tunewheel_outputs.texts import said_before, spoken
from tunewheel_retrieval.building import searched_text
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
        """Those that ``now`` holds in another version, or not at all."""
        then, now = _versions(self._before), _versions(self._now)
        return frozenset(name for name, record in then.items() if now.get(name) != record)

    def of(self, example: ChatExample, gold: Passage) -> Change | None:
        """Return what became of the document that ``gold``, a passage of the old version, is part of; None:
        it is as it was."""
        if gold.document_id not in self.documents:
            return None
        old_text, new_text = self._texts[0][gold.document_id], self._texts[1].get(gold.document_id, "")
        asked = _named(said_before(example.messages[:-1]))
        known = _named(new_text)
        return Change(
            frozenset(_named(searched_text(gold)) - known - asked),
            frozenset(known - _named(old_text) - asked),
        )

    @cached_property
    def _texts(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return _by_document(self._before), _by_document(self._now)


def _versions(index: Index) -> dict[str, str]:
    return dict(index.documents.select("document_id", "record_id").iter_rows())


def _by_document(index: Index) -> dict[str, str]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for passage in index.rows:
        texts[passage.document_id].append(searched_text(passage))
    return {name: "\n".join(several) for name, several in texts.items()}


def _named(text: str) -> set[str]:
    return figures_in(text) | names_in(text)


def _said(answer: str) -> set[str]:
    """Every term, for a sentence may begin with the name."""
    said = spoken(answer)
    return terms_of(said) | figures_in("\n".join(said))
