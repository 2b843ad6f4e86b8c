"""Finds training conversations that hold a held-out question. The answer often stands beside it.

A question can leak through any training text: another user's longer question, an earlier turn of a thread, an
answer, a passage of a document. So whole conversations are searched, except the system prompt, which is the
same everywhere. A question is found by its words (``containment``), and in earlier turns of a thread also by
similarity.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunewheel_curate.cleaning.normalization import comparison_key, comparison_keys
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY
from tunewheel_curate.similarity.containment import LEAST_WORDS, LONG_WORDS, holding, only_words
from tunewheel_curate.similarity.pairs import similar_pairs
from tunewheel_curate.similarity.shingling import Integers
from tunewheel_curate.stage import HOLDOUT, Stage, keep_all

HELD_OUT = "held-out questions"
ANSWER_IN_TRAINING = "answer_in_training"
TOO_COMMON = "too_common"
"""The drop reason of a held-out question that more than ``MOST_HOLDERS`` training conversations hold.
Removing all of them from training would cost more than the question is worth."""
MOST_HOLDERS = 20
FOLLOW_UP_WORDS = 8
"""A thread's last question with so many words is also searched without the turns before it. Shorter ones
("thank you very much") mean nothing alone."""

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Leaks:
    """The rows of the training side and of the holdout to drop."""

    train: frozenset[int]
    holdout: frozenset[int]
    questions: frozenset[str]
    """The held-out questions that rows of the training side hold."""


def questions_of(turns: Turns) -> list[str]:
    """Return the questions in ``turns``, whose last turn is the answer: all text before the answer, and in a
    thread also the last question by itself if it has ``FOLLOW_UP_WORDS``."""
    asked = [turn["content"] for turn in turns[:-1] if turn["role"] != "system"]
    alone = len(asked) > 1 and len(asked[-1].split()) >= FOLLOW_UP_WORDS
    return ["\n\n".join(asked), *([asked[-1]] if alone else [])]


def held_out_questions(holdout: pl.DataFrame) -> BenchmarkTexts:
    """Return the questions of ``holdout`` (with ``messages``) as a benchmark that no training row may
    hold."""
    asked = [text for turns in holdout["messages"].to_list() for text in questions_of(turns)]
    return BenchmarkTexts(HELD_OUT, tuple(dict.fromkeys(asked)), whole=True)


def said_in(examples: pl.DataFrame) -> pl.DataFrame:
    """Return the turns of ``examples`` (with ``messages``) in order, without system prompts: ``owner`` (the
    row), ``role`` and ``key`` (the normalised text).

    In a JSON answer the end of a line is the two characters ``\\n``, which become a blank: otherwise the
    ``n`` would join the next word.
    """
    turns = (
        examples.select("messages")
        .with_row_index("owner")
        .explode("messages")
        .unnest("messages")
        .filter(pl.col("role") != "system")
    )
    keys = comparison_keys(turns["content"].str.replace_all("\\n", " ", literal=True)).alias("key")
    return turns.select(pl.col("owner").cast(pl.Int64), "role", keys)


def holders(said: pl.DataFrame, keys: pl.Series) -> tuple[Integers, Integers]:
    """Return pairs (owner, position in ``keys``) of conversations in ``said`` that hold a text of
    ``keys``."""
    whole = said.group_by("owner", maintain_order=True).agg(pl.col("key").str.join(" "))
    text, item = holding(only_words(whole["key"]), only_words(keys))
    return whole["owner"].to_numpy()[text], item


def find_leaks(said: pl.DataFrame, holdout: pl.DataFrame) -> Leaks:
    """Find the training conversations (``said``, as ``said_in`` returns them) that hold a question of
    ``holdout``."""
    asked = [
        (row, text) for row, turns in enumerate(holdout["messages"].to_list()) for text in questions_of(turns)
    ]
    keys = comparison_keys(pl.Series([text for _, text in asked], dtype=pl.String))
    owners, items = holders(said, keys)
    near_owners, near_items = _in_earlier_turns(said, keys)
    held_by = defaultdict[int, set[int]](set)
    for owner, item in zip([*owners.tolist(), *near_owners], [*items.tolist(), *near_items], strict=True):
        if len(held_by[item]) <= MOST_HOLDERS:  # one more than the limit is enough to be too common
            held_by[item].add(owner)
    common = frozenset(asked[item][0] for item, rows in held_by.items() if len(rows) > MOST_HOLDERS)
    left = [item for item in held_by if asked[item][0] not in common]
    return Leaks(
        train=frozenset(owner for item in left for owner in held_by[item]),
        holdout=common,
        questions=frozenset(asked[item][1] for item in left),
    )


def find_answers(rows: pl.DataFrame, *, train: pl.DataFrame) -> Stage:
    """Write for each held-out row whether its answer stands in a conversation of ``train``, in
    ``answer_in_training``. Null: the row trains, or no text of its answer has ``LONG_WORDS`` words.

    Such answers may train: a document is there to be learnt. But a model may know them by heart, so a verdict
    shows these rows apart.
    """
    held = rows.with_row_index("row").filter(pl.col("side") == HOLDOUT)
    texts = [
        (row, key)
        for row, turns in held.select("row", "messages").iter_rows()
        for text in _texts(turns[-1]["content"])
        if (key := comparison_key(text)).count(" ") + 1 >= LONG_WORDS
    ]
    _, items = holders(said_in(train), pl.Series([key for _, key in texts], dtype=pl.String))
    standing = {texts[item][0] for item in items.tolist()}
    found = {row: row in standing for row, _ in texts}
    written = pl.Series(ANSWER_IN_TRAINING, [found.get(row) for row in range(rows.height)], dtype=pl.Boolean)
    return keep_all("answers", rows.with_columns(written))


def _texts(answer: str) -> list[str]:
    """Return the texts of an answer: itself, or the strings in it if it is JSON."""
    try:
        found: list[Any] = [json.loads(answer)]
    except (ValueError, RecursionError):
        return [answer]
    texts: list[str] = []
    while found:
        part = found.pop()
        if isinstance(part, dict | list):
            found += part.values() if isinstance(part, dict) else part
        elif isinstance(part, str):
            texts.append(part)
    return texts


def _in_earlier_turns(said: pl.DataFrame, keys: pl.Series) -> tuple[list[int], list[int]]:
    """Return pairs (owner, position in ``keys``) where an earlier question of a thread resembles the text.

    At most ``MOST_HOLDERS`` + 1 threads with the same question are returned, which is enough to be too
    common: a greeting may be in every thread.
    """
    users = said.filter(pl.col("role") == "user")
    last = pl.int_range(pl.len()).reverse().over("owner") == 0
    earlier = users.filter(~last & (pl.col("key").str.count_matches(" ", literal=True) + 1 >= LEAST_WORDS))
    if earlier.is_empty():
        return [], []
    turns = earlier["key"].unique(maintain_order=True).to_list()
    place = {key: number for number, key in enumerate(turns)}
    owners_of = defaultdict[int, list[int]](list)
    for owner, key in earlier.select("owner", "key").unique(maintain_order=True).iter_rows():
        if len(owners_of[place[key]]) <= MOST_HOLDERS:
            owners_of[place[key]].append(owner)
    owners, items = list[int](), list[int]()
    for pair in similar_pairs([*turns, *keys], minimum=LEAK_SIMILARITY):
        if pair.first < len(turns) <= pair.second:
            owners += owners_of[pair.first]
            items += [pair.second - len(turns)] * len(owners_of[pair.first])
    return owners, items
