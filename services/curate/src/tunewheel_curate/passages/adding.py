"""Puts passages into the prompts of training rows: examples, preference pairs and negatives.

Held-out rows stay without passages: eval asks their questions with and without passages itself. General data,
and examples that ask for a place in a document ("Quote the section …", code), stay without passages too:
nobody asks such questions through retrieval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import polars as pl
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ExampleFormat, FunnelStage, PassageUse
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_retrieval.prompts import context_of, question_of, with_context

from tunewheel_curate.contents import Contents
from tunewheel_curate.documents.examples import DocumentExamples
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.inputs import OpenIndex
from tunewheel_curate.passages.choosing import Choice, Chooser, Place, Row, allowed_passages

if TYPE_CHECKING:
    from tunewheel_embedding.static import Vectors

STAGE = "passages"
ASKED = (ExampleFormat.ANSWER.value, ExampleFormat.QUESTION.value)
"""The formats of rows whose questions are like those of users."""
ORIGINS = {
    "record_id": pl.String(),
    "example_id": pl.String(),
    "place": pl.String(),
}
"""The columns: the record of a passage, the name of the row whose prompt holds it, and the passage's
heading."""
_EMBEDDED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Shown:
    """The passages that rows got from an index version."""

    index_id: str
    index: ArtifactRef
    use: PassageUse
    funnel: FunnelStage
    origins: pl.DataFrame
    """Rows of ``ORIGINS``."""
    passages: int
    """How many passages the index has."""


def add_passages(
    contents: Contents,
    documents: DocumentExamples | None,
    opened: OpenIndex,
    records: Collection[str],
    *,
    spec: ProjectSpec,
    tokens: Tokens,
    benchmarks: Sequence[BenchmarkTexts] = (),
) -> tuple[Contents, Shown]:
    """Return ``contents`` with passages of ``opened`` in the prompts of training rows.

    ``documents`` knows the section that a row was made of. ``records`` are the ids of the records that the
    build may use. A row keeps its best-ranked passages that fit into ``dataset.max_tokens``. Reasons in the
    funnel for a row without passages: ``nothing_found`` (no passage that may be shown) and ``no_room``.
    """
    assert spec.retrieval is not None
    allowed = allowed_passages(
        opened.index, records, spec=spec, tokens=tokens, holdout=contents.split.holdout,
        memory=contents.memory, benchmarks=benchmarks,
    )  # fmt: skip
    chooser = Chooser(opened.index, spec.retrieval, allowed)
    rows = list(_rows(contents, documents.places if documents is not None else {}))
    chosen = {
        row.name: chooser.choose(row, vector)
        for row, vector in zip(rows, _vectors(rows, opened), strict=True)
    }
    found = sum(bool(choice.hits) for choice in chosen.values())
    contexts = _Contexts(rows, chosen, chooser, spec.retrieval)
    contexts.fit(tokens, spec.dataset.max_tokens)
    held = [choice for choice in chosen.values() if choice.hits]
    gold = sum(choice.has_gold for choice in held)
    reasons = {"nothing_found": len(rows) - found, "no_room": found - len(held)}
    shown = Shown(
        index_id=opened.index_id,
        index=opened.manifest,
        use=PassageUse(
            gold=gold,
            distractors_only=len(held) - gold,
            without=len(rows) - len(held),
            left_out=len(opened.index.rows) - len(allowed),
        ),
        funnel=FunnelStage(
            stage=STAGE, entered=len(rows), left=len(held), reasons={k: n for k, n in reasons.items() if n}
        ),
        origins=_origins(chosen),
        passages=len(opened.index.rows),
    )
    return _with_contexts(contents, contexts.texts), shown


def _rows(contents: Contents, places: Mapping[str, Place]) -> Iterator[Row]:
    asked = contents.split.train.filter(pl.col("format").is_in(ASKED))
    for name, turns in asked.select("example_id", "messages").iter_rows():
        yield Row(name, turns[:-1], (turns[-1]["content"],), places.get(name))
    if contents.preferences is not None:
        pairs = contents.preferences.pairs.select("pair_id", "prompt", "chosen", "rejected")
        for name, prompt, better, worse in pairs.iter_rows():
            yield Row(name, prompt, (better, worse))
    if contents.negatives is not None:
        for name, prompt, answer in contents.negatives.rows.select(
            "negative_id", "prompt", "rejected"
        ).iter_rows():
            yield Row(name, prompt, (answer,))


def _vectors(rows: Sequence[Row], opened: OpenIndex) -> Iterator[Vectors | None]:
    if opened.units is None:
        yield from repeat(None, len(rows))
        return
    for start in range(0, len(rows), _EMBEDDED_AT_ONCE):
        some = rows[start : start + _EMBEDDED_AT_ONCE]
        yield from opened.units([question_of(row.prompt) for row in some])


class _Contexts:
    """The texts of the ``chosen`` passages in the prompts of ``rows``."""

    def __init__(
        self, rows: Sequence[Row], chosen: dict[str, Choice], chooser: Chooser, spec: RetrievalSpec
    ) -> None:
        self._rows, self._chosen, self._chooser, self._spec = rows, chosen, chooser, spec
        self.texts = {row.name: self._text(row) for row in rows}

    def fit(self, tokens: Tokens, max_tokens: int) -> None:
        """Remove passages, worst ranked first, from rows that are longer than ``max_tokens``. Without
        passages every row fits: longer ones were dropped before."""
        left = [row for row in self._rows if self.texts[row.name]]
        while left:
            left = [
                row for row, size in zip(left, self._sizes(left, tokens), strict=True) if size > max_tokens
            ]
            for row in left:
                self._chosen[row.name] = self._chosen[row.name].without_last()
                self.texts[row.name] = self._text(row)
            left = [row for row in left if self.texts[row.name]]

    def _text(self, row: Row) -> str:
        return context_of(self._spec, self._chooser.ordered(row, self._chosen[row.name]))

    def _sizes(self, rows: Sequence[Row], tokens: Tokens) -> list[int]:
        """Return the number of tokens of each row with its passages and its longest answer."""
        prompts = [
            [turn["content"] for turn in with_context(row.prompt, self.texts[row.name])] for row in rows
        ]
        talks = [
            [*prompt, answer] for row, prompt in zip(rows, prompts, strict=True) for answer in row.answers
        ]
        sizes = iter(tokens.conversation_sizes(talks))
        return [max(next(sizes) for _ in row.answers) for row in rows]


def _origins(chosen: Mapping[str, Choice]) -> pl.DataFrame:
    told = (
        (hit.passage.record_id, name, hit.passage.heading or None)
        for name, choice in chosen.items()
        for hit in choice.hits
    )
    frame = pl.DataFrame(list(told), schema=ORIGINS, orient="row")
    return frame.unique(["record_id", "example_id"], keep="first", maintain_order=True)


def _with_contexts(contents: Contents, texts: Mapping[str, str]) -> Contents:
    train = _told(contents.split.train, "messages", "example_id", texts)
    preferences, negatives = contents.preferences, contents.negatives
    if preferences is not None:
        pairs = _told(preferences.pairs, "prompt", "pair_id", texts)
        preferences = replace(preferences, pairs=pairs)
    if negatives is not None:
        negatives = replace(negatives, rows=_told(negatives.rows, "prompt", "negative_id", texts))
    split = replace(contents.split, train=train)
    return replace(contents, split=split, preferences=preferences, negatives=negatives)


def _told(frame: pl.DataFrame, column: str, name: str, texts: Mapping[str, str]) -> pl.DataFrame:
    talks: Iterable[tuple[str, list[dict[str, Any]]]] = frame.select(name, column).iter_rows()
    told = [with_context(turns, texts.get(row, "")) for row, turns in talks]
    return frame.with_columns(pl.Series(column, told, dtype=frame.schema[column]))
