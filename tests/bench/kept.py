"""What stays held out after a migration, and how often versions wait for a person, rightly and wrongly.

Migration: public questions make a version. Then all tickets come again under new ids and customers: with two
words more, with one word changed, or with two. ``within_leak_similarity`` are the twins that one version
would have kept on one side (word pairs, ``LEAK_SIMILARITY``); a twin below it is an everyday difference
between two questions of this set. ``false_drops`` are new questions that resemble no held-out one so much
and yet count as rewordings. The short questions are phrases of two and three words.

Holds: versions of simulated customers of very unequal size, each of whom asks mostly about one thing; two
labels, or twelve of which most are rare. The second version holds the rows of the first and new ones from the
same customers, or new ones alone. Without a shift every hold is false. With a shift a part of the new rows
has the first label instead of its own. The intervals are Clopper and Pearson's (1934), at .95.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from corpus import DATA, project, require_data
from report import write_report
from scipy.stats import binomtest
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, REWORDED, HoldoutMemory
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_curate.versions.changes import Composition, changes_between
from tunewheel_testing.shingles import jaccard, shingles

NAMES = Pseudonyms("bench", "a secret of the bench")
QUESTIONS, VERSIONS = 7_000, 40
SIZES, CUSTOMERS, LABELS = (40, 100, 300, 1_000), (8, 40, 2_000), (2, 12)
GROWTH = (None, 0.2, 1.0, 3.0)
"""By how much of itself a version grows; None: all its rows are new."""
SHIFTS = (0.0, 0.5, 0.9)
WORDS = ["please", "thanks", "again", "update", "ticket", "hello", "regarding", "issue", "still", "today"]


def questions() -> list[str]:
    """Return distinct questions of banking77: short, and the hardest set, since intents share their words."""
    asked: set[str] = set()
    for name in ("train.csv", "test.csv"):
        with (DATA / "banking77" / name).open(encoding="utf-8") as file:
            asked.update(row["text"].strip() for row in csv.DictReader(file))
    return sorted(asked)


def short_questions(texts: list[str]) -> list[str]:
    """Return distinct phrases of two and three words from the beginnings of ``texts``."""
    phrases = {" ".join(text.lower().split()[:size]) for size in (2, 3) for text in texts}
    return sorted(phrases)


def more(text: str, rng: random.Random) -> str:
    before = rng.choice([0, 1, 2])
    return " ".join([*rng.sample(WORDS, before), text, *rng.sample(WORDS, 2 - before)])


def changed(text: str, rng: random.Random, *, words: int = 2) -> str:
    said = text.split()
    for _ in range(words):
        place = rng.randrange(len(said))
        match rng.choice("idr"):
            case "i":
                said.insert(place, rng.choice(WORDS))
            case "d" if len(said) > 3:
                del said[place]
            case _:
                said[place] = rng.choice(WORDS)
    return " ".join(said)


def tickets(texts: list[str], prefix: str) -> pl.DataFrame:
    rows = [
        dict.fromkeys(RECORD_SCHEMA)
        | {
            "project": "bench", "record_id": f"{prefix}{n}", "kind": "ticket", "source_id": f"{prefix}{n}",
            "source_event_id": f"{prefix}{n}", "title": "", "input": text, "group": f"{prefix}{n}",
            "output": json.dumps({"category": "ab"[n % 2], "reply": f"Answer {n}."}), "trust": "expert",
            "attributes": "{}", "event_id": f"{prefix}{n}", "partition": 0, "offset": n,
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=RECORD_SCHEMA)


def numbers(frame: pl.DataFrame) -> set[str]:
    return {ids[0][3:] for ids in frame["record_ids"].to_list()}


def migration(
    texts: list[str], change: Callable[[str, random.Random], str], names: Pseudonyms
) -> dict[str, Any]:
    spec, rng = project(["a", "b"]), random.Random(5)
    first = build(tickets(texts, "old"), spec, Inputs(memory=HoldoutMemory(names=names)))
    moved = [change(text, rng) for text in texts]
    second = build(tickets(moved, "new"), spec, Inputs(memory=first.memory))
    held = numbers(first.split.holdout)
    train = held & numbers(second.split.train)
    near = [jaccard(shingles(texts[int(n)]), shingles(moved[int(n)])) >= LEAK_SIMILARITY for n in train]
    return {
        "held_out": len(held), "twins_that_train": len(train), "within_leak_similarity": sum(near),
        "held_out_again": len(held & numbers(second.split.holdout)),
    }  # fmt: skip


def false_drops(first: Build, new: list[str]) -> dict[str, int]:
    held = [shingles(turns[-2]["content"]) for turns in first.split.holdout["messages"].to_list()]
    alike = first.memory.likeness(comparison_keys(pl.Series(new))) >= REWORDED
    truly = [max(jaccard(shingles(text), one) for one in held) >= LEAK_SIMILARITY for text in new]
    both = list(zip(alike, truly, strict=True))
    return {
        "new_questions": len(new), "within_leak_similarity": sum(truly),
        "false_drops": both.count((True, False)), "missed": both.count((False, True)),
    }  # fmt: skip


@dataclass(frozen=True)
class Customers:
    """Simulated customers: by customer, the chance of each label, and other habits."""

    labels: npt.NDArray[np.float64]
    words: npt.NDArray[np.float64]
    by_mail: npt.NDArray[np.bool_]
    faults: npt.NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, count: int, labels: int) -> Customers:
        shares = np.ones(labels) if labels == 2 else 1 / np.arange(1, labels + 1)
        habits = rng.dirichlet(shares / shares.sum() * rng.choice([1.0, 10.0]), count)
        return cls(habits, rng.lognormal(3, 0.4, count), rng.random(count) < 0.2, rng.random(count))

    def rows(self, rng: np.random.Generator, count: int, shift: float = 0.0) -> pl.DataFrame:
        sizes = 1 / np.arange(1, len(self.words) + 1)
        group = rng.choice(len(self.words), count, p=sizes / sizes.sum())
        label = (self.labels[group].cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
        label = np.where(rng.random(count) < shift, 0, label)
        words = (self.words[group] * rng.lognormal(0, 0.4, count)).astype(int) + 1
        return pl.DataFrame(
            {
                "format": "answer", "label": [f"label-{n}" for n in label], "group": [f"g{n}" for n in group],
                "source": np.where(self.by_mail[group], "example", "ticket"), "question_words": words,
                "answer_words": words[::-1],
                "dropped": self.faults[group] * 0.6 + rng.random(count) * 0.4 < 0.25,
            }
        )  # fmt: skip


def composed(rows: pl.DataFrame) -> Composition:
    left = rows.filter(~pl.col("dropped")).with_row_index("example_id").cast({"example_id": pl.String})
    return Composition(left, (FunnelStage(stage="cleaning", entered=rows.height, left=left.height),))


def holds(growth: float | None, customers: int, labels: int, shift: float, seed: int) -> bool:
    rng = np.random.default_rng([seed, customers, labels, int(10 * (growth or 9)), int(10 * shift)])
    crowd, size = Customers.drawn(rng, customers, labels), int(rng.choice(SIZES))
    first = crowd.rows(rng, size)
    new = crowd.rows(rng, size if growth is None else round(size * growth), shift)
    second = new if growth is None else pl.concat([first, new])
    found = changes_between(composed(first), composed(second))
    return any(not one.low <= one.now <= one.high for one in found)


def held_versions(shift: float) -> dict[str, Any]:
    """Return how many versions are held, in all with an interval, and of those that grow by each part."""
    counts = {
        growth: sum(
            holds(growth, customers, labels, shift, seed)
            for customers, labels, seed in product(CUSTOMERS, LABELS, range(VERSIONS))
        )
        for growth in GROWTH
    }
    each, held = len(CUSTOMERS) * len(LABELS) * VERSIONS, sum(counts.values())
    interval = binomtest(held, each * len(GROWTH)).proportion_ci(0.95, method="exact")
    parts = {f"growth {growth or 'replaced'}": f"{count} of {each}" for growth, count in counts.items()}
    return {"versions": each * len(GROWTH), "held": held, "low": interval.low, "high": interval.high} | parts


def main() -> None:
    require_data()
    texts = questions()
    random.Random(3).shuffle(texts)
    used, others = texts[:QUESTIONS], texts[QUESTIONS : QUESTIONS + 2_000]
    short = short_questions(others)
    random.Random(3).shuffle(short)
    first = build(tickets(used, "old"), project(["a", "b"]), Inputs(memory=HoldoutMemory(names=NAMES)))
    write_report(
        "kept",
        contenders={
            "two words more": migration(used, more, NAMES),
            "two words more, short": migration(short[:1_200], more, NAMES),
            "two words more, no secret": migration(used, more, Pseudonyms("bench")),
            "one word changed": migration(used, partial(changed, words=1), NAMES),
            "two words changed": migration(used, changed, NAMES),
            "new questions": false_drops(first, others),
            "new short questions": false_drops(first, short),
            **{f"shift {shift:g}": held_versions(shift) for shift in SHIFTS},
        },
        ratios={},
        packages=("polars", "scipy"),
    )


if __name__ == "__main__":
    main()
