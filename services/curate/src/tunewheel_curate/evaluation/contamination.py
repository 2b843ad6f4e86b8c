"""Removes training examples that overlap a benchmark or hold a question of the project's own holdout.

An example overlaps a benchmark's text by one of three tests. All compare words only, without case,
punctuation and spacing: the same text; a common run of ``words`` words (13 in Brown et al. 2020, "Language
models are few-shot learners", appendix C); or a near-duplicate, with the similarity that also makes two
examples duplicates. The first two tests look at questions and answers, the third at questions. How held-out
questions are found: see ``leakage``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.cleaning.normalization import comparison_keys, normalize_texts
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, Overlap
from tunewheel_curate.evaluation.leakage import (
    HELD_OUT,
    TOO_COMMON,
    find_leaks,
    held_out_questions,
    holders,
    said_in,
)
from tunewheel_curate.similarity.containment import only_words
from tunewheel_curate.similarity.near_index import (
    NearIndex,
    empty_index,
    grow,
    numbers_in,
    shared_counts,
    sharing_bands,
)
from tunewheel_curate.similarity.shingling import Integers, band_keys, shingle_sets, word_runs
from tunewheel_curate.stage import TRAIN, Stage, drop

REASON = "contaminated"
_PIECES_AT_ONCE = 20_000
"""How many texts are searched at once. The search automaton takes about a kilobyte per text."""

OVERLAP_SCHEMA: dict[str, pl.DataType] = {
    "text": pl.Int64(),
    "item": pl.Int64(),
    "how": pl.String(),
}
"""Positions of an example's text and of a benchmark's item, and the test that found them: same, run, near."""


@dataclass(frozen=True)
class Search:
    """The texts that no training row may hold, and how they are searched for."""

    benchmarks: tuple[BenchmarkTexts, ...]
    words: int
    """So many words in a row make an overlap."""
    threshold: float
    """The similarity of a near-duplicate."""
    index: NearIndex = field(default_factory=empty_index)
    """It saves sketching the texts that it has, and does not change the result."""

    def overlaps(self, said: pl.DataFrame) -> Iterator[tuple[BenchmarkTexts, Integers, Integers]]:
        """Yield for each benchmark the pairs (owner, item) of ``said`` (see ``said_in``) and its texts."""
        for benchmark in self.benchmarks:
            yield benchmark, *self._common(said, benchmark)

    def reasons(self, rows: pl.DataFrame) -> dict[int, str]:
        """Return, by position, why ``rows`` (with ``messages``) must not train."""
        reasons: dict[int, str] = {}
        for benchmark, owners, _ in self.overlaps(said_in(rows)) if rows.height else ():
            for position in owners.tolist():
                reasons.setdefault(position, f"{REASON}: {benchmark.name}")
        return reasons

    def _common(self, said: pl.DataFrame, benchmark: BenchmarkTexts) -> tuple[Integers, Integers]:
        items = _keys(benchmark.texts)
        by_user = pl.col("role") == "user"
        asked, answered = said.filter(by_user), said.filter(~by_user)
        found = find_overlaps(
            asked["key"], items, words=self.words, threshold=self.threshold, index=self.index
        )
        owners, places = [asked["owner"].gather(found["text"]).to_numpy()], [found["item"].to_numpy()]
        if benchmark.whole:
            owner, place = holders(said, items)
        else:
            found = find_repeated(answered["key"], items, words=self.words)
            owner, place = answered["owner"].gather(found["text"]).to_numpy(), found["item"].to_numpy()
        return np.concatenate([*owners, owner]), np.concatenate([*places, place])


def drop_contaminated(
    rows: pl.DataFrame,
    *,
    search: Search,
    drops: bool = True,
    holdout: pl.DataFrame | None = None,
) -> Stage:
    """Drop training ``rows`` (``record_id``, ``messages``, ``side``) that ``search`` finds, if ``drops``, and
    those that hold a question of ``holdout`` (sorted by ``example_id``).

    If there is a holdout, its overlap is the last one. Reasons: ``contaminated: <benchmark>``, and
    ``too_common`` for a held-out question.
    """
    said, trains = said_in(rows), (rows["side"] == TRAIN).to_numpy()
    reasons: dict[int, str] = {}
    overlaps: list[Overlap] = []
    for benchmark, owners, items in search.overlaps(said):
        touched = np.unique(owners)
        training = touched[trains[touched]]
        dropped = training if drops else training[:0]
        for position in dropped.tolist():
            reasons.setdefault(position, f"{REASON}: {benchmark.name}")
        counts = (len(dropped), len(training) - len(dropped), len(touched) - len(training))
        overlaps.append(Overlap(benchmark, frozenset(items.tolist()), *counts))
    if holdout is not None and holdout.height:
        training = pl.col("owner").is_in(np.flatnonzero(trains))
        leaks = find_leaks(said.filter(training), holdout)
        for position in leaks.train:
            reasons.setdefault(position, f"{REASON}: {HELD_OUT}")
        common = holdout["record_id"].gather(sorted(leaks.holdout))
        leaving = rows["record_id"].is_in(common.implode()).to_numpy() & ~trains
        reasons |= {int(position): TOO_COMMON for position in np.flatnonzero(leaving)}
        held = held_out_questions(holdout.filter(~pl.col("record_id").is_in(common.implode())))
        leaked = frozenset(n for n, text in enumerate(held.texts) if text in leaks.questions)
        overlaps.append(Overlap(held, leaked, dropped=len(leaks.train)))
    reason = pl.Series([reasons.get(position) for position in range(rows.height)], dtype=pl.String)
    return replace(drop("contamination", rows, reason), overlaps=tuple(overlaps))


def find_overlaps(
    keys: pl.Series, items: pl.Series, *, words: int, threshold: float, index: NearIndex
) -> pl.DataFrame:
    """Return ``OVERLAP_SCHEMA`` rows for ``keys`` and ``items``, texts as ``comparison_key`` returns them."""
    distinct = keys.unique(maintain_order=True)
    return _named(
        keys, distinct, [*_repeated(distinct, items, words), _near(distinct, items, threshold, index)]
    )


def find_repeated(keys: pl.Series, items: pl.Series, *, words: int) -> pl.DataFrame:
    """Return the overlaps that ``find_overlaps`` finds word for word: the same text, or a common run."""
    distinct = keys.unique(maintain_order=True)
    return _named(keys, distinct, _repeated(distinct, items, words))


def _named(keys: pl.Series, distinct: pl.Series, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    found = pl.concat(parts).unique(["text", "item"], keep="first", maintain_order=True)
    named = found.with_columns(distinct.gather(found["text"]).alias("key")).drop("text")
    texts = pl.DataFrame({"key": keys}).with_row_index("text").cast({"text": pl.Int64})
    return texts.join(named, on="key").select(OVERLAP_SCHEMA.keys()).sort("text", "item")


def _repeated(distinct: pl.Series, items: pl.Series, words: int) -> list[pl.DataFrame]:
    said, asked = only_words(distinct), only_words(items)
    worth = np.flatnonzero(_may_hold_runs(said, asked, words))
    return [_same(said, asked), _runs(distinct.gather(worth), items, words, worth)]


def _same(said: pl.Series, asked: pl.Series) -> pl.DataFrame:
    texts = pl.DataFrame({"words": said}).with_row_index("text").filter(pl.col("words") != "")
    wanted = pl.DataFrame({"words": asked}).with_row_index("item")
    return _overlaps(texts.join(wanted, on="words"), "same")


def _runs(keys: pl.Series, items: pl.Series, words: int, positions: Integers) -> pl.DataFrame:
    item, wanted = word_runs(items, words)
    text, held = word_runs(keys, words, wanted=wanted)
    texts = pl.DataFrame({"text": positions[text], "run": held}).unique()
    return _overlaps(texts.join(pl.DataFrame({"item": item, "run": wanted}).unique(), on="run"), "run")


def _may_hold_runs(said: pl.Series, asked: pl.Series, words: int) -> npt.NDArray[np.bool_]:
    """Return for each text in ``said`` whether it may share a run of ``words`` words with an item: (texts,).
    Both series are as ``_only_words`` returns them.

    Each item is cut into pieces of ``words`` / 2 words, so every run of it holds a whole piece. Searching for
    the pieces is quicker than hashing all runs.
    """
    half = (words + 1) // 2
    items = [item.split(" ") for item in asked.to_list()]
    cut = [item[at : at + half] for item in items if len(item) >= words for at in range(0, len(item), half)]
    pieces = sorted({f" {' '.join(piece)} " for piece in cut if len(piece) == half})
    texts, may = pl.select(" " + said + " ").to_series(), np.zeros(len(said), np.bool_)
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        may |= texts.str.contains_any(pieces[start : start + _PIECES_AT_ONCE]).to_numpy()
    return may


def _near(keys: pl.Series, items: pl.Series, threshold: float, index: NearIndex) -> pl.DataFrame:
    numbers = numbers_in(index, keys)
    strangers = np.flatnonzero(numbers < 0)
    others, other_numbers = grow(empty_index(), keys.gather(strangers))
    sets = shingle_sets(items)
    bands = band_keys(sets)
    parts = [
        _near_among(bands, index, numbers[numbers >= 0], np.flatnonzero(numbers >= 0)),
        _near_among(bands, others, other_numbers, strangers),
    ]
    item, text = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    touched, place = np.unique(text, return_inverse=True)
    whole = sets.joined(shingle_sets(keys.gather(touched)))
    shared = shared_counts(whole, item, len(items) + place).astype(np.int64)
    sizes = whole.sizes
    says_something = (only_words(items) != "").to_numpy()[item]
    alike = says_something & (shared >= threshold * (sizes[item] + sizes[len(items) + place] - shared))
    return _overlaps(pl.DataFrame({"text": text[alike], "item": item[alike]}), "near")


def _near_among(
    bands: np.ndarray, index: NearIndex, numbers: Integers, positions: Integers
) -> tuple[Integers, Integers]:
    """Return pairs (item, position) that share a band. ``numbers`` are the texts' numbers in ``index``."""
    position_of = np.full(len(index), -1, np.int64)
    position_of[numbers] = positions
    item, number = sharing_bands(index, bands)
    text = position_of[number]
    return item[text >= 0], text[text >= 0]


def _overlaps(found: pl.DataFrame, how: str) -> pl.DataFrame:
    return found.select(
        pl.col("text").cast(pl.Int64), pl.col("item").cast(pl.Int64), pl.lit(how).alias("how")
    ).unique(maintain_order=True)


def _keys(texts: Sequence[str]) -> pl.Series:
    return comparison_keys(normalize_texts(pl.Series(texts, dtype=pl.String)))
