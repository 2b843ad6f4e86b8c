"""What stays held out after a migration, and how often a version of stable data would wait for a person.

Migration: public questions make a version. Then all tickets come again under new ids and customers, with two
words more, or with two words changed anywhere. ``false_drops`` are new questions that resemble no held-out
one by ``LEAK_SIMILARITY`` and yet count as rewordings.

Stable data: versions of simulated customers of very unequal size, each of whom asks mostly about one thing.
The second version holds the rows of the first and new ones from the same customers.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from corpus import DATA, project, require_data
from report import write_report
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, REWORDED, HoldoutMemory
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.similarity.shingling import jaccard, shingles
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_curate.versions.changes import Composition, changes_between

NAMES = Pseudonyms("bench", "a secret of the bench")
QUESTIONS, LEAST_WORDS, VERSIONS = 5_500, 4, 1_000
WORDS = ["please", "thanks", "again", "update", "ticket", "hello", "regarding", "issue", "still", "today"]


def questions() -> list[str]:
    """Return distinct questions of banking77: short, and the hardest set, since intents share their words."""
    asked: set[str] = set()
    for name in ("train.csv", "test.csv"):
        with (DATA / "banking77" / name).open(encoding="utf-8") as file:
            asked.update(row["text"].strip() for row in csv.DictReader(file))
    return sorted(text for text in asked if len(text.split()) >= LEAST_WORDS)


def more(text: str, rng: random.Random) -> str:
    before = rng.choice([0, 1, 2])
    return " ".join([*rng.sample(WORDS, before), text, *rng.sample(WORDS, 2 - before)])


def changed(text: str, rng: random.Random) -> str:
    words = text.split()
    for _ in range(2):
        place = rng.randrange(len(words))
        match rng.choice("idr"):
            case "i":
                words.insert(place, rng.choice(WORDS))
            case "d" if len(words) > LEAST_WORDS - 1:
                del words[place]
            case _:
                words[place] = rng.choice(WORDS)
    return " ".join(words)


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
        "held_out": len(held), "twins_that_train": len(train), "of_these_within_leak_similarity": sum(near),
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


def stable(seed: int) -> bool:
    rng = np.random.default_rng(seed)
    count, added = int(rng.choice([30, 60, 150, 400, 1000])), int(rng.choice([20, 60, 200]))
    customers = int(rng.choice([8, 40, 400]))
    own, length = rng.random(customers), rng.lognormal(3, 0.4, customers)
    weights = 1 / np.arange(1, customers + 1)
    group = rng.choice(customers, count + added, p=weights / weights.sum())
    label = np.where(own[group] * 0.7 + rng.random(len(group)) * 0.3 < 0.3, "a", "b")
    words = (length[group] * rng.lognormal(0, 0.4, len(group))).astype(int) + 1
    rows = pl.DataFrame(
        {
            "example_id": [f"ex-{n}" for n in range(len(group))], "format": "answer", "label": label,
            "group": [f"g{n}" for n in group], "source": np.where(own[group] < 0.2, "example", "ticket"),
            "question_words": words, "answer_words": words[::-1],
        }
    )  # fmt: skip
    drops = own[group] * 0.6 + rng.random(len(group)) * 0.4 < 0.25

    def version(size: int) -> Composition:
        left = size - int(drops[:size].sum())
        return Composition(rows.head(size), (FunnelStage(stage="cleaning", entered=size, left=left),))

    found = changes_between(version(count), version(count + added))
    return any(not one.low <= one.now <= one.high for one in found)


def main() -> None:
    require_data()
    texts = questions()
    random.Random(3).shuffle(texts)
    used, others = texts[:QUESTIONS], texts[QUESTIONS : QUESTIONS + 2_000]
    first = build(tickets(used, "old"), project(["a", "b"]), Inputs(memory=HoldoutMemory(names=NAMES)))
    held = sum(stable(seed) for seed in range(VERSIONS))
    write_report(
        "kept",
        contenders={
            "two words more": migration(used, more, NAMES),
            "two words more, no secret": migration(used, more, Pseudonyms("bench")),
            "two words changed": migration(used, changed, NAMES),
            "new questions": false_drops(first, others),
            "stable versions": {"versions": VERSIONS, "held": held},
        },
        ratios={},
        packages=("polars", "scipy"),
    )


if __name__ == "__main__":
    main()
