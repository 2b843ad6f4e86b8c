"""Removes training examples that overlap a benchmark or hold a question of the project's own holdout.

An example overlaps a benchmark's text by one of three tests. All compare words only, without case,
punctuation and spacing: the same text; a common run of ``words`` words (13 in Brown et al. 2020, "Language
models are few-shot learners", appendix C); or a near-duplicate, with the similarity that also makes two
examples duplicates. The first two tests look at questions and answers, the third at questions. How held-out
questions are found: see ``leakage``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.data_quality import ContaminationPolicy

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
from tunewheel_curate.holdout.splitting import Split
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
from tunewheel_curate.stage import Stage, dropped_frame

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
class Decontaminated:
    """The split without the removed examples, the stage that removed them, and the overlap per benchmark."""

    split: Split
    stage: Stage
    overlaps: tuple[Overlap, ...]


def decontaminate(
    split: Split,
    benchmarks: Sequence[BenchmarkTexts],
    policy: ContaminationPolicy,
    *,
    threshold: float,
    index: NearIndex,
) -> Decontaminated:
    """Remove training examples that overlap ``benchmarks``, if ``policy`` says so, and always those that hold
    a question of the holdout.

    ``threshold`` is the similarity of a near-duplicate. ``index`` saves sketching the texts that it has. If
    there is a holdout, its overlap is the last one. Reasons: ``contaminated: <benchmark>``, and for a
    held-out question ``too_common``.
    """
    train, holdout = (said_in(side) for side in (split.train, split.holdout))
    both = pl.concat([train, holdout.with_columns(pl.col("owner") + split.train.height)])
    reasons: dict[int, str] = {}
    overlaps: list[Overlap] = []
    for benchmark in benchmarks:
        owners, items = _common(both, benchmark, words=policy.words, threshold=threshold, index=index)
        touched = np.unique(owners)
        training = touched[touched < split.train.height]
        dropped = training if policy.action == "drop" else training[:0]
        for position in dropped.tolist():
            reasons.setdefault(position, f"{REASON}: {benchmark.name}")
        overlaps.append(
            Overlap(
                benchmark,
                frozenset(items.tolist()),
                dropped=len(dropped),
                train=len(training) - len(dropped),
                holdout=len(touched) - len(training),
            )
        )
    leaks = find_leaks(train, split.holdout)
    reasons |= {row + split.train.height: TOO_COMMON for row in leaks.holdout}
    for row in leaks.train:
        reasons.setdefault(row, f"{REASON}: {HELD_OUT}")
    cleared, stage = _without(split, reasons)
    if split.holdout.height:
        held = held_out_questions(cleared.holdout)
        leaked = frozenset(n for n, text in enumerate(held.texts) if text in leaks.questions)
        overlaps.append(Overlap(held, leaked, dropped=len(leaks.train)))
    return Decontaminated(cleared, stage, tuple(overlaps))


def given_away(
    examples: pl.DataFrame, benchmarks: Sequence[BenchmarkTexts], *, words: int, threshold: float
) -> dict[int, str]:
    """Return, by position, why ``examples`` (with ``messages``) must not train: they overlap one of
    ``benchmarks``. See ``decontaminate``."""
    if examples.is_empty():
        return {}
    said = said_in(examples)
    reasons: dict[int, str] = {}
    for benchmark in benchmarks:
        owners, _ = _common(said, benchmark, words=words, threshold=threshold, index=empty_index())
        for position in owners.tolist():
            reasons.setdefault(position, f"{REASON}: {benchmark.name}")
    return reasons


def _common(
    said: pl.DataFrame, benchmark: BenchmarkTexts, *, words: int, threshold: float, index: NearIndex
) -> tuple[Integers, Integers]:
    """Return pairs (owner, item) of what is ``said`` (see ``said_in``) and the texts of ``benchmark``."""
    items = _keys(benchmark.texts)
    by_user = pl.col("role") == "user"
    asked, answered = said.filter(by_user), said.filter(~by_user)
    found = find_overlaps(asked["key"], items, words=words, threshold=threshold, index=index)
    owners, places = [asked["owner"].gather(found["text"]).to_numpy()], [found["item"].to_numpy()]
    if benchmark.whole:
        owner, place = holders(said, items)
    else:
        found = find_repeated(answered["key"], items, words=words)
        owner, place = answered["owner"].gather(found["text"]).to_numpy(), found["item"].to_numpy()
    return np.concatenate([*owners, owner]), np.concatenate([*places, place])


def find_overlaps(
    keys: pl.Series, items: pl.Series, *, words: int, threshold: float, index: NearIndex
) -> pl.DataFrame:
    """Return ``OVERLAP_SCHEMA`` rows for ``keys`` and ``items``, texts as ``comparison_key`` returns them."""
    distinct = keys.unique(maintain_order=True)
    return _told(
        keys, distinct, [*_repeated(distinct, items, words), _near(distinct, items, threshold, index)]
    )


def find_repeated(keys: pl.Series, items: pl.Series, *, words: int) -> pl.DataFrame:
    """Return the overlaps that ``find_overlaps`` finds word for word: the same text, or a common run."""
    distinct = keys.unique(maintain_order=True)
    return _told(keys, distinct, _repeated(distinct, items, words))


def _told(keys: pl.Series, distinct: pl.Series, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
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


def _without(split: Split, reasons: Mapping[int, str]) -> tuple[Split, Stage]:
    """Remove rows from ``split``. Positions in ``reasons`` count the training rows first, then the
    holdout."""
    rows = pl.concat([split.train, split.holdout])
    trains = pl.int_range(rows.height, eager=True) < split.train.height
    reason = pl.Series("reason", [reasons.get(row) for row in range(rows.height)], dtype=pl.String)
    gone = rows.with_columns(reason).filter(reason.is_not_null()).explode("record_ids")
    train, holdout = (rows.filter(side & reason.is_null()) for side in (trains, ~trains))
    stage = Stage(
        name="contamination",
        kept=pl.concat([train, holdout]),
        dropped=dropped_frame(gone["record_ids"], gone["reason"]),
    )
    return Split(train, holdout), stage
