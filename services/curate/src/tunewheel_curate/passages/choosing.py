"""Chooses the passages for the prompt of one row: the one that answers ("gold"), and distractors.

Source: Zhang et al., "RAFT: Adapting Language Model to Domain Specific RAG", 2024. A share of the rows has
the gold passage among distractors; the other rows have distractors only. Every choice follows from the names
of the row and of the index version, so building the version again gives the same rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_redaction.redaction import Redactor
from tunewheel_retrieval.context import as_data, fit
from tunewheel_retrieval.hits import Hit, Passage
from tunewheel_retrieval.index import DEPTH, Index
from tunewheel_retrieval.prompts import question_of
from tunewheel_retrieval.search import WhyNot, passages_for
from tunewheel_retrieval.words import words_of

from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.examples.templates import holds_control_token
from tunewheel_curate.stage import TRAIN, Stage, drop
from tunewheel_curate.step import Lane

if TYPE_CHECKING:
    from tunewheel_embedding.static import Vectors


def draft_passages(index: Index, records: pl.Series, refused: Collection[str] = ()) -> Lane:
    """Return a row for each passage of ``index`` that the prompts of training rows may hold. A passage whose
    record is not among ``records`` was withdrawn or erased, or is newer than the build's records. Passages
    of records that a person ``refused``, and those that not every caller may see, are in no row: the index
    may be older than the refusal."""
    own, hidden = set(records).difference(refused), set(index.hidden(()).tolist())
    passages = [
        passage for at, passage in enumerate(index.rows) if passage.record_id in own and at not in hidden
    ]
    rows = {
        "record_id": [passage.passage_id for passage in passages],
        "document": [passage.record_id for passage in passages],
        "input": [passage.searched for passage in passages],
        "messages": [[{"role": "assistant", "content": as_data(one.searched)}] for one in passages],
        "side": [TRAIN] * len(passages),
    }
    texts = dict.fromkeys(("record_id", "document", "input", "side"), pl.String())
    return Lane(pl.DataFrame(rows, schema_overrides=texts | {"messages": EXAMPLE_SCHEMA["messages"]}))


def drop_personal_data(rows: pl.DataFrame, *, policy: PiiPolicy, project: str) -> Stage:
    """Drop passages in which ``policy`` finds personal data: the index may have been built with an earlier
    one. Reason: ``pii``."""
    found = Redactor(policy, project=project).holds_any(rows["input"])
    return drop("personal_data", rows, pl.when(pl.Series(found, dtype=pl.Boolean)).then(pl.lit("pii")))


def drop_control_tokens(rows: pl.DataFrame, *, tokenizer: Any) -> Stage:
    """Drop passages with a control token of the base model's chat template. Reason: ``control_token``."""
    texts = rows.select(pl.col("messages").list.last().struct["content"]).to_series()
    holds = holds_control_token(texts, tokenizer)
    return drop("control_tokens", rows, pl.when(holds).then(pl.lit("control_token")))


Place = tuple[str, str]
"""A section: the record's id and the heading."""
_DIGITS = 13
"""How many hex digits of a hash are used for a number from 0 to 1."""


@dataclass(frozen=True)
class Row:
    """A training row: an example, a preference pair or a negative."""

    name: str
    prompt: Sequence[Mapping[str, str]]
    answers: tuple[str, ...]
    """The answers that may follow the prompt. The longest must fit."""
    place: Place | None = None
    """The section that the row was made of; None: it was not made of a document."""


@dataclass(frozen=True)
class Choice:
    hits: tuple[Hit, ...]
    """The gold passage, if there is one, then the others, best ranked first."""
    has_gold: bool

    def without_last(self) -> Choice:
        return Choice(self.hits[:-1], self.has_gold and len(self.hits) > 1)


class Chooser:
    """Chooses among the passages of ``index`` that ``allowed`` names."""

    def __init__(self, index: Index, spec: RetrievalSpec, allowed: Collection[str]) -> None:
        assert spec.training is not None
        self._index, self._spec, self._training, self._allowed = index, spec, spec.training, allowed
        self._sections: dict[Place, list[Passage]] = {}
        self._records: dict[str, list[Passage]] = {}
        for passage in index.rows:
            if passage.passage_id in allowed:
                self._sections.setdefault(_place_of(passage), []).append(passage)
                self._records.setdefault(passage.record_id, []).append(passage)

    def choose(self, row: Row, vector: Vectors | WhyNot) -> Choice:
        """Return the passages for ``row``, at most as many as a served prompt may hold. ``vector`` is the
        vector of its question, or why there is none.

        For a row that was made of a section, the gold passage is the one of that section that shares most
        words with the answer. For any other row it is the best-ranked passage. A row that gets only
        distractors gets no passage of the gold section, and no copy of the gold passage.
        """
        found = passages_for(self._index, question_of(row.prompt), vector, DEPTH)
        ranked = [hit for hit in found if hit.passage.passage_id in self._allowed]
        gold = self._of_section(row) or next(iter(ranked), None)
        if gold is None:
            return Choice((), has_gold=False)
        others = [hit for hit in ranked if not _tells_as_much(hit.passage, gold.passage, row.place)]
        others = others[: self._training.distractors]
        if self._number(row.name) >= self._training.gold:
            return Choice(fit(others, budget=self._spec.budget_tokens), has_gold=False)
        hits = fit([gold, *others], budget=self._spec.budget_tokens)
        return Choice(hits, has_gold=gold in hits)

    def ordered(self, row: Row, choice: Choice) -> list[Hit]:
        """Return the hits in the order of the prompt. It is independent of their ranks: a model must not
        learn that the first passage answers."""
        index_id = self._index.manifest.index_id
        return sorted(
            choice.hits, key=lambda hit: content_sha256([row.name, index_id, hit.passage.passage_id])
        )

    def _number(self, name: str) -> float:
        """Return a number from 0 to below 1 that follows from the row and the index."""
        digits = content_sha256([name, self._index.manifest.index_id])[:_DIGITS]
        return int(digits, 16) / 16**_DIGITS

    def _of_section(self, row: Row) -> Hit | None:
        if row.place is None:
            return None
        own = self._sections.get(row.place) or self._records.get(row.place[0])
        if not own:
            return None
        said = {word for answer in row.answers for word in words_of(answer)}
        shared = [len(said.intersection(words_of(passage.text))) for passage in own]
        return Hit(own[shared.index(max(shared))], score=0.0)


def _place_of(passage: Passage) -> Place:
    return passage.record_id, passage.heading


def _tells_as_much(passage: Passage, gold: Passage, place: Place | None) -> bool:
    """Return whether ``passage`` may answer like ``gold``: it is a copy of it, or belongs to its section or
    to the row's section."""
    return _place_of(passage) in (_place_of(gold), place) or passage.text == gold.text
