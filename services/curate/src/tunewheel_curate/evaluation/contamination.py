"""Examples that give away what the model will be judged by.

Three tests, each by the words alone (case, punctuation and spacing do not count): the same text; a common run
of ``words`` words (13 in Brown et al. 2020, "Language models are few-shot learners", appendix C); a
near-duplicate by the similarity that also counts among examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.data_quality import ContaminationPolicy
from tunewheel_contracts.formats.quality_report import BenchmarkOverlap

from tunewheel_curate.cleaning.normalization import comparison_keys, normalize_texts
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.similarity.near_index import (
    NearIndex,
    empty_index,
    grow,
    numbers_in,
    shared_counts,
    sharing_bands,
)
from tunewheel_curate.similarity.shingling import Integers, shingle_sets, word_runs
from tunewheel_curate.similarity.sketching import band_keys
from tunewheel_curate.stage import Stage, dropped_frame

REASON = "contaminated"
_PIECES_AT_ONCE = 20_000
"""They are looked for together, by an automaton that takes about a kilobyte for each."""

OVERLAP_SCHEMA: dict[str, pl.DataType] = {
    "text": pl.Int64(),
    "item": pl.Int64(),
    "how": pl.String(),
}
"""Positions of an example's text and of a benchmark's item, and what they have in common: same, run, near."""


@dataclass(frozen=True)
class Decontaminated:
    """The split after examples were taken out, the stage that did it, and what each benchmark lost."""

    split: Split
    stage: Stage
    overlaps: tuple[BenchmarkOverlap, ...]


def decontaminate(
    split: Split,
    benchmarks: Sequence[BenchmarkTexts],
    policy: ContaminationPolicy,
    *,
    threshold: float,
    index: NearIndex,
) -> Decontaminated:
    """Find the examples that overlap ``benchmarks``; those that would train go where ``policy`` says so.

    ``threshold`` is the similarity of a near-duplicate; ``index`` spares sketching texts it holds. Reasons:
    ``contaminated: <benchmark>``.
    """
    both = pl.concat(
        [split.train.select("example_id", "messages"), split.holdout.select("example_id", "messages")]
    )
    keys, owners = _user_keys(both)
    trains = np.arange(both.height) < split.train.height
    reasons: dict[int, str] = {}
    reports: list[BenchmarkOverlap] = []
    for benchmark in benchmarks:
        items = _keys(benchmark.texts)
        found = find_overlaps(keys, items, words=policy.words, threshold=threshold, index=index)
        touched = np.unique(owners[found["text"].to_numpy()])
        training = touched[trains[touched]]
        dropped = training if policy.action == "drop" else training[:0]
        for position in dropped.tolist():
            reasons.setdefault(position, f"{REASON}: {benchmark.name}")
        reports.append(
            BenchmarkOverlap(
                benchmark=benchmark.name,
                sha256=benchmark.sha256,
                items=len(items),
                overlapping_items=found["item"].n_unique(),
                dropped=len(dropped),
                train=len(training) - len(dropped),
                holdout=len(touched) - len(training),
            )
        )
    return _without(split, reasons, tuple(reports))


def given_away(
    examples: pl.DataFrame, benchmarks: Sequence[BenchmarkTexts], *, words: int, threshold: float
) -> dict[int, str]:
    """Return why ``examples`` (with ``messages``) must not train, by the position of each that overlaps one
    of ``benchmarks``. See ``decontaminate``."""
    keys, owners = _user_keys(examples)
    reasons: dict[int, str] = {}
    for benchmark in benchmarks:
        items = _keys(benchmark.texts)
        found = find_overlaps(keys, items, words=words, threshold=threshold, index=empty_index())
        for position in owners[found["text"].to_numpy()].tolist():
            reasons.setdefault(position, f"{REASON}: {benchmark.name}")
    return reasons


def find_overlaps(
    keys: pl.Series, items: pl.Series, *, words: int, threshold: float, index: NearIndex
) -> pl.DataFrame:
    """Return ``OVERLAP_SCHEMA`` rows for ``keys`` and ``items``, texts as ``comparison_key`` returns them."""
    distinct = keys.unique(maintain_order=True)
    said, asked = _only_words(distinct), _only_words(items)
    worth = np.flatnonzero(_may_hold_runs(said, asked, words))
    parts = [
        _same(said, asked),
        _runs(distinct.gather(worth), items, words, worth),
        _near(distinct, items, threshold, index),
    ]
    found = pl.concat(parts).unique(["text", "item"], keep="first", maintain_order=True)
    named = found.with_columns(distinct.gather(found["text"]).alias("key")).drop("text")
    texts = pl.DataFrame({"key": keys}).with_row_index("text").cast({"text": pl.Int64})
    return texts.join(named, on="key").select(OVERLAP_SCHEMA.keys()).sort("text", "item")


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
    """Tell which texts are worth searching for runs of ``words`` words of an item: (texts,). Both are as
    ``_only_words`` returns them.

    An item is cut into pieces of half that many words, so that every run of it holds one of them whole. To
    look for those is quicker than to hash all runs there are.
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
    says_something = (_only_words(items) != "").to_numpy()[item]
    alike = says_something & (shared >= threshold * (sizes[item] + sizes[len(items) + place] - shared))
    return _overlaps(pl.DataFrame({"text": text[alike], "item": item[alike]}), "near")


def _near_among(
    bands: np.ndarray, index: NearIndex, numbers: Integers, positions: Integers
) -> tuple[Integers, Integers]:
    """Return pairs (item, position) that share a band, of the texts that bear ``numbers`` in ``index``."""
    position_of = np.full(len(index), -1, np.int64)
    position_of[numbers] = positions
    item, number = sharing_bands(index, bands)
    text = position_of[number]
    return item[text >= 0], text[text >= 0]


def _overlaps(found: pl.DataFrame, how: str) -> pl.DataFrame:
    return found.select(
        pl.col("text").cast(pl.Int64), pl.col("item").cast(pl.Int64), pl.lit(how).alias("how")
    ).unique(maintain_order=True)


def _user_keys(examples: pl.DataFrame) -> tuple[pl.Series, Integers]:
    """Return the key of every distinct thing a user says in ``examples``, and the position of its example."""
    said = (
        examples.with_row_index("owner")
        .explode("messages")
        .unnest("messages")
        .filter(pl.col("role") == "user")
        .select("owner", "content")
    )
    return comparison_keys(said["content"]), said["owner"].to_numpy().astype(np.int64)


def _keys(texts: Sequence[str]) -> pl.Series:
    return comparison_keys(normalize_texts(pl.Series(texts, dtype=pl.String)))


def _only_words(keys: pl.Series) -> pl.Series:
    return keys.str.replace_all(r"[^\w ]\W*| \W+", " ").str.strip_chars()  # single blanks stay as they are


def _without(split: Split, reasons: dict[int, str], reports: tuple[BenchmarkOverlap, ...]) -> Decontaminated:
    rows = split.train.with_columns(
        pl.Series("reason", [reasons.get(row) for row in range(split.train.height)], dtype=pl.String)
    )
    gone = rows.filter(pl.col("reason").is_not_null()).explode("record_ids")
    train = rows.filter(pl.col("reason").is_null()).drop("reason")
    entered = Stage(
        name="contamination",
        kept=pl.concat([train, split.holdout]),
        dropped=dropped_frame(gone["record_ids"], gone["reason"]),
    )
    return Decontaminated(Split(train, split.holdout), entered, reports)
