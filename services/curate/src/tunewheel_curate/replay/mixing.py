"""Mixes general instruction data into training, so that the model keeps what it could do before.

Pure: ``sources.py`` reads the pool. A conversation is not taken if it resembles an example of the project,
now or in an earlier version. General data is never held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat, FunnelStage, ReplayUse
from tunewheel_contracts.formats.spec import DatasetSpec, ReplaySpec
from tunewheel_contracts.identity import content_id

from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.evaluation.contamination import given_away
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.similarity.pairs import similar_pairs

STAGE = "replay"
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

    @property
    def funnel(self) -> FunnelStage:
        return FunnelStage(
            stage=STAGE, entered=self.use.available, left=self.use.sampled, reasons=self.use.reasons
        )


def choose_replay(
    pool: ReplayPool,
    spec: ReplaySpec,
    split: Split,
    dataset: DatasetSpec,
    *,
    memory: HoldoutMemory,
    tokens: Tokens,
    benchmarks: Sequence[BenchmarkTexts],
) -> Replayed:
    """Take so many conversations from ``pool`` that they make up ``spec.share`` of the training rows.

    A larger version takes the same conversations and more. Reasons in the funnel: ``too_long``,
    ``asked_by_project`` (the same question), ``held_out`` (now or before), ``contaminated: <benchmark>`` (by
    a common run of words; the held-out questions count as a benchmark), ``like_project``,
    ``like_another`` and ``not_needed``.
    """
    train, holdout = split.train, split.holdout
    judged_by = [*benchmarks, held_out_questions(holdout)]
    wanted = int(spec.share / (1 - spec.share) * train.height)
    ours = {comparison_key(question) for question in _questions([train, holdout])}
    reasons: Counter[str] = Counter()
    candidates: list[Turns] = []
    like: dict[int, str] = {}
    waiting = iter(pool.conversations)
    while len(candidates) - len(like) < wanted:
        batch = list(islice(waiting, max(SPARE * wanted, LEAST_BATCH)))
        if not batch:
            break
        refusals = [_refusal(turns, ours, memory, dataset.max_tokens, tokens) for turns in batch]
        reasons.update(reason for reason in refusals if reason is not None)
        fit = [turns for turns, reason in zip(batch, refusals, strict=True) if reason is None]
        frame = pl.DataFrame({"messages": fit}, schema={"messages": EXAMPLE_SCHEMA["messages"]})
        away = given_away(frame, judged_by, words=dataset.contamination.words, threshold=LIKE_OURS)
        reasons.update(away.values())
        candidates += [turns for number, turns in enumerate(fit) if number not in away]
        like = _too_alike([_question(turns) for turns in candidates], list(_questions([train, holdout])))
    reasons.update(like.values())
    chosen = [turns for number, turns in enumerate(candidates) if number not in like][:wanted]
    left_over = len(pool.conversations) - sum(reasons.values()) - len(chosen)
    if left_over:
        reasons["not_needed"] = left_over
    use = ReplayUse(
        source=spec.source,
        sha256=pool.sha256,
        available=len(pool.conversations),
        reasons=dict(sorted(reasons.items())),
        sampled=len(chosen),
        share=round(len(chosen) / max(1, len(chosen) + train.height), 4),
        license=spec.license or pool.license,
    )
    return Replayed(_examples(chosen), use)


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
