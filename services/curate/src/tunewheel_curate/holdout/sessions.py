"""Finds records of one conversation: the history of the later record holds the question of the earlier one.

Records of one customer share a group. If a source names no customer, each turn of a session is a group of its
own, and so is each ticket of a thread. Such records are recognised by their questions. They must be on the
same side of the split, because the history of the later one holds the answer of the earlier one.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl

from tunewheel_curate.cleaning.histories import Turn, turns_of
from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.similarity.containment import LEAST_WORDS
from tunewheel_curate.similarity.pairs import SimilarPairs

MOST_GROUPS = 20
"""The most groups whose histories may hold a question. A question in more of them is an everyday question ("I
need help with my order") and does not identify a conversation."""

Moment = tuple[str | None, str]
"""The assistant's last turn and the user's turn after it; (None, question) at the start of a conversation."""


def conversation_pairs(records: pl.DataFrame) -> SimilarPairs:
    """Return pairs of positions in ``records`` (``input``, ``history`` and ``group``) of one conversation.

    A question with a history is searched in other histories together with the answer before it. A question
    without one is searched alone; as a later turn it counts only if it has ``LEAST_WORDS``.
    """
    threads = records.with_row_index("row").filter(pl.col("history").is_not_null())
    holders = defaultdict[Moment, dict[str, int]](dict)
    """The first row of each group whose history holds the moment."""
    histories: dict[int, list[Turn]] = {}
    for row, group, history in threads.select("row", "group", "history").iter_rows():
        histories[row] = turns_of(history)
        for moment in _moments(histories[row]):
            holders[moment].setdefault(group, row)
    edges = [
        (row, holder)
        for row, text in enumerate(records["input"].to_list() if holders else [])
        for holder in _of_few(holders.get(_asked(text, histories.get(row, [])), {}))
    ]
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    return SimilarPairs(first, second, np.ones(len(first)))


def _of_few(holders: dict[str, int]) -> list[int]:
    return list(holders.values()) if len(holders) <= MOST_GROUPS else []


def _asked(text: str, history: list[Turn]) -> Moment:
    before = history[-1]["content"] if history and history[-1]["role"] == "assistant" else None
    return None if before is None else comparison_key(before), comparison_key(text)


def _moments(history: list[Turn]) -> set[Moment]:
    moments = set[Moment]()
    for place, turn in enumerate(history):
        if turn["role"] == "user":
            moments.add(_asked(turn["content"], history[:place]))
            if len(turn["content"].split()) >= LEAST_WORDS:
                moments.add((None, comparison_key(turn["content"])))
    return moments
