"""Puts passages into the prompts of training rows: examples, preference pairs and negatives.

Held-out rows stay without passages: eval asks their questions with and without passages itself. General data,
and examples that ask for a place in a document ("Quote the section …", code), stay without passages too:
nobody asks such questions through retrieval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ExampleFormat, FunnelStage, PassageUse
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.hits import Hit
from tunewheel_retrieval.prompts import context_of, question_of, with_context
from tunewheel_retrieval.search import WhyNot, vectors_of

from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.inputs import OpenIndex
from tunewheel_curate.passages.choosing import Choice, Chooser, Row
from tunewheel_curate.stage import TRAIN, Stage, keep_all

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
ORIGIN = pl.Struct({"record_id": pl.String(), "place": pl.String()})
PROMPT_COLUMNS = ("example_id", "passages", "gold", "found")
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
    rows: pl.DataFrame,
    *,
    opened: OpenIndex,
    allowed: Collection[str],
    retrieval: RetrievalSpec,
    tokens: Tokens,
    max_tokens: int,
    with_rejected: bool,
) -> Stage:
    """Put passages of ``opened`` into the prompts of training ``rows``; ``allowed`` are their ids.

    A row keeps its best-ranked passages that fit into ``max_tokens``, also before the rejected answer
    (``with_rejected``). The column ``passages`` lists them (null: the row asks for none), ``gold`` says
    whether one of them answers, and ``found`` whether there was any that may be shown.
    """
    chooser = Chooser(opened.index, retrieval, allowed)
    asks = (pl.col("side") == TRAIN) & pl.col("format").is_in(ASKED)
    asking = [_row(row, with_rejected) for row in rows.filter(asks).iter_rows(named=True)]
    chosen = {
        row.name: chooser.choose(row, vector)
        for row, vector in zip(asking, _vectors(asking, opened), strict=True)
    }
    found = {name for name, choice in chosen.items() if choice.hits}
    contexts = _Contexts(asking, chosen, chooser, retrieval)
    contexts.fit(tokens, max_tokens)
    names = rows["example_id"].to_list()
    held = {name: [_origin(hit) for hit in choice.hits] for name, choice in chosen.items()}
    messages = [
        with_context(turns, contexts.texts.get(name, ""))
        for name, turns in rows.select("example_id", "messages").iter_rows()
    ]
    with_passages = rows.with_columns(
        pl.Series("messages", messages, dtype=rows.schema["messages"]),
        pl.Series("passages", [held.get(name) for name in names], dtype=pl.List(ORIGIN)),
        pl.Series("gold", [name in chosen and chosen[name].has_gold for name in names], dtype=pl.Boolean),
        pl.Series("found", [name in found for name in names], dtype=pl.Boolean),
    )
    return keep_all(STAGE, with_passages)


def _row(row: Mapping[str, Any], with_rejected: bool) -> Row:
    *prompt, answer = row["messages"]
    answers = (answer["content"], row["rejected_output"]) if with_rejected else (answer["content"],)
    place = None if row["document"] is None else (row["document"], row["heading"])
    return Row(row["example_id"], prompt, answers, place)


def _origin(hit: Hit) -> dict[str, str | None]:
    return {"record_id": hit.passage.record_id, "place": hit.passage.heading or None}


def _vectors(rows: Sequence[Row], opened: OpenIndex) -> Iterator[Vectors | WhyNot]:
    for start in range(0, len(rows), _EMBEDDED_AT_ONCE):
        some = [question_of(row.prompt) for row in rows[start : start + _EMBEDDED_AT_ONCE]]
        yield from vectors_of(opened.index.manifest, opened.embedder, some)


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


def shown_in(lanes: Sequence[pl.DataFrame], opened: OpenIndex, allowed: int) -> Shown:
    """Return the passages in the rows of ``lanes``; ``allowed`` is how many of the index might be shown."""
    rows = pl.concat([lane.select(PROMPT_COLUMNS).sort("example_id") for lane in lanes]).drop_nulls(
        "passages"
    )
    held = rows.filter(pl.col("passages").list.len() > 0)
    gold, found = int(held["gold"].sum()), int(rows["found"].sum())
    reasons = {"nothing_found": rows.height - found, "no_room": found - held.height}
    origins = held.explode("passages").unnest("passages").select(*ORIGINS)
    return Shown(
        index_id=opened.index_id,
        index=opened.manifest,
        use=PassageUse(
            gold=gold,
            distractors_only=held.height - gold,
            without=rows.height - held.height,
            left_out=len(opened.index.rows) - allowed,
        ),
        funnel=FunnelStage(
            stage=STAGE, entered=rows.height, left=held.height,
            reasons={reason: count for reason, count in reasons.items() if count},
        ),
        origins=origins.unique(["record_id", "example_id"], keep="first", maintain_order=True),
        passages=len(opened.index.rows),
    )  # fmt: skip
