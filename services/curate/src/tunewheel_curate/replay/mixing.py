"""Mixes general instruction data into training, so that the model keeps what it could do before.

Pure: ``sources.py`` reads the pool. A conversation is not taken if it resembles an example of the project,
now or in an earlier version. General data is never held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat, ReplayUse
from tunewheel_contracts.formats.dataset_spec import ReplaySpec
from tunewheel_contracts.identity import content_id

from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.evaluation.contamination import Search
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.similarity.pairs import similar_pairs
from tunewheel_curate.stage import Stage, drop
from tunewheel_curate.step import Lane

LIKE_OURS = 0.6
"""Jaccard similarity from which a conversation is too much like one of the project's, or like another."""
SPARE = 2
"""How many candidates are drawn per wanted row, because some are too similar and are dropped."""
LEAST_BATCH = 256

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class ReplayPool:
    """Conversations in the order in which they are taken. The order follows from their content."""

    conversations: tuple[Turns, ...]
    sha256: str
    license: str | None = None


@dataclass(frozen=True)
class Replayed:
    """The conversations that a version takes from the pool."""

    examples: pl.DataFrame
    """With the columns of the examples."""
    use: ReplayUse


def draft_replay(pool: ReplayPool) -> Lane:
    """Return a row for each conversation of ``pool``, in its order."""
    rows = {"messages": pool.conversations}
    frame = pl.DataFrame(rows, schema={"messages": EXAMPLE_SCHEMA["messages"]})
    return Lane(
        frame.select(pl.int_range(pl.len()).cast(pl.String).str.zfill(9).alias("record_id"), "messages")
    )


def choose_replay(
    rows: pl.DataFrame,
    *,
    share: float,
    train: pl.DataFrame,
    holdout: pl.DataFrame,
    max_tokens: int,
    tokens: Tokens,
    memory: HoldoutMemory,
    search: Search,
) -> Stage:
    """Take so many conversations from ``rows`` that they make up ``share`` of the training rows: those and
    ``train``.

    A larger version takes the same conversations and more. Reasons: ``too_long``, ``asked_by_project`` (the
    same question), ``held_out`` (now or before), ``contaminated: <benchmark>`` (the held-out questions count
    as a benchmark), ``like_project``, ``like_another`` and ``not_needed``.
    """
    wanted = int(share / (1 - share) * train.height)
    questions = list(_questions([train, holdout]))
    ours = {comparison_key(question) for question in questions}
    reasons: dict[str, str] = {}
    candidates: list[tuple[str, str]] = []
    """The row and the question of each."""
    like: dict[int, str] = {}
    waiting = rows.iter_slices(max(SPARE * wanted, LEAST_BATCH))
    while len(candidates) - len(like) < wanted and (batch := next(waiting, None)) is not None:
        refusals = [
            _refusal(turns, ours, memory, max_tokens, tokens) for turns in batch["messages"].to_list()
        ]
        fit = batch.filter(pl.Series([reason is None for reason in refusals], dtype=pl.Boolean))
        away = search.reasons(fit)
        names = zip(batch["record_id"], refusals, strict=True)
        reasons |= {name: reason for name, reason in names if reason is not None}
        reasons |= {fit["record_id"][position]: reason for position, reason in away.items()}
        candidates += [
            (name, _question(turns))
            for name, turns in fit.select("record_id", "messages").iter_rows()
            if name not in reasons
        ]
        like = _too_alike([question for _, question in candidates], questions)
    reasons |= {candidates[position][0]: reason for position, reason in like.items()}
    chosen = {name for name, _ in [one for one in candidates if one[0] not in reasons][:wanted]}
    fates = [None if name in chosen else reasons.get(name, "not_needed") for name in rows["record_id"]]
    return drop("replay", rows, pl.Series(fates, dtype=pl.String))


def replayed_of(lane: Lane, pool: ReplayPool, spec: ReplaySpec, train: int) -> Replayed:
    """Return the examples that the rows of ``lane`` are, beside ``train`` examples of the project."""
    (funnel,) = lane.funnel
    use = ReplayUse(
        source=spec.source,
        sha256=pool.sha256,
        available=funnel.entered,
        reasons=funnel.reasons,
        sampled=funnel.left,
        share=round(funnel.left / max(1, funnel.left + train), 4),
        license=spec.license or pool.license,
    )
    return Replayed(_examples(lane.rows["messages"].to_list()), use)


def _refusal(
    turns: Turns, ours: set[str], memory: HoldoutMemory, max_tokens: int, tokens: Tokens
) -> str | None:
    if tokens.conversation_sizes([[turn["content"] for turn in turns]])[0] > max_tokens:
        return "too_long"
    key = comparison_key(_question(turns))
    if memory.holds_question(key):
        return "held_out"
    return "asked_by_project" if key in ours else None


def _too_alike(candidates: Sequence[str], ours: Sequence[str]) -> dict[int, str]:
    """Return why a candidate (by position) must not be taken."""
    like: dict[int, str] = {}
    pairs = similar_pairs([*ours, *candidates], minimum=LIKE_OURS)
    for pair in sorted(pairs, key=lambda pair: (pair.first, pair.second)):
        first, second = pair.first - len(ours), pair.second - len(ours)
        if second < 0:
            continue
        if first < 0:
            like[second] = "like_project"
        elif first not in like:
            like.setdefault(second, "like_another")
    return like


def _examples(chosen: Iterable[Turns]) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for turns in chosen:
        name = content_id("ex", turns)
        rows.append(
            {
                "example_id": name,
                "messages": turns,
                "label": None,
                "group": f"replay-{name}",
                "trust": "unverified",
                "record_ids": [],
                "format": ExampleFormat.REPLAY.value,
            }
        )
    return pl.DataFrame(rows, schema=EXAMPLE_SCHEMA)


def _questions(frames: Iterable[pl.DataFrame]) -> Iterable[str]:
    for frame in frames:
        for messages in frame["messages"]:
            yield _question(messages.to_list() if isinstance(messages, pl.Series) else messages)


def _question(turns: Turns) -> str:
    """Return all user turns as one text: short follow-ups alone would resemble each other by chance."""
    return "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
