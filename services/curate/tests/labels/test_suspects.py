from __future__ import annotations

import csv
import random
from pathlib import Path

import polars as pl
from tunewheel_contracts.formats.data_quality import LabelReview
from tunewheel_curate.labels.suspects import find_suspects

TOPICS = {"bell": ["ring", "sound", "loud", "lever"], "horn": ["honk", "rubber", "squeeze", "air"],
          "lamp": ["light", "bulb", "dark", "battery"]}  # fmt: skip


def labelled(count: int, flipped: int = 0) -> pl.DataFrame:
    rng = random.Random(4)
    names = sorted(TOPICS)
    rows = []
    for number in range(count):
        label = names[number % 3]
        words = rng.choices(TOPICS[label], k=4) + rng.choices(["my", "the", "please", "now"], k=3)
        said = names[(number + 1) % 3] if number < flipped else label
        rows.append({"record_id": f"rec-{number:04}", "key": " ".join(words), "label": said})
    return pl.DataFrame(rows)


def test_flipped_labels_are_suspected_and_what_they_should_be_is_told() -> None:
    frame = labelled(300, flipped=12)
    found = find_suspects(frame, LabelReview(min_examples=100))
    flipped = {f"rec-{number:04}" for number in range(12)}
    assert len(flipped & set(found["record_id"])) >= 11
    assert len(set(found["record_id"]) - flipped) <= 3
    truth = {f"rec-{number:04}": sorted(TOPICS)[number % 3] for number in range(12)}
    said = dict(found.select("record_id", "suggested").iter_rows())
    assert all(said[record] == truth[record] for record in flipped & said.keys())
    assert found["confidence"].to_list() == sorted(found["confidence"])


def test_order_does_not_matter() -> None:
    frame = labelled(200, flipped=8)
    policy = LabelReview(min_examples=100)
    assert find_suspects(frame, policy).equals(
        find_suspects(frame.sample(fraction=1, shuffle=True, seed=1), policy)
    )


def test_nobody_is_suspected_where_there_is_too_little_to_learn_from() -> None:
    frame = labelled(120, flipped=5)
    assert find_suspects(frame, LabelReview(min_examples=121)).is_empty()
    assert find_suspects(frame, LabelReview(min_examples=20, suspects=False)).is_empty()
    alone = frame.with_columns(pl.lit("bell").alias("label"))
    assert find_suspects(alone, LabelReview(min_examples=20)).is_empty()
    unlabelled = frame.with_columns(pl.lit(None, dtype=pl.String).alias("label"))
    assert find_suspects(unlabelled, LabelReview(min_examples=20)).is_empty()


def test_nobody_is_suspected_where_words_do_not_tell_labels_apart() -> None:
    rng = random.Random(8)
    frame = labelled(300).with_columns(pl.Series("label", rng.choices(sorted(TOPICS), k=300)))
    assert find_suspects(frame, LabelReview(min_examples=100)).is_empty()


def test_rare_labels_do_not_stop_it() -> None:
    rare = pl.DataFrame({"record_id": ["zz"], "key": ["a gong"], "label": ["gong"]})
    found = find_suspects(pl.concat([labelled(150, flipped=6), rare]), LabelReview(min_examples=100))
    assert found.height >= 5
    assert "zz" not in found["record_id"]


def test_planted_errors_in_real_queries_are_suspected(shared_data: Path, record_property) -> None:
    """banking77: 2 % of 1,500 labels of ten intents are replaced by another intent's."""
    rows = list(csv.DictReader((shared_data / "banking77/train.csv").open(encoding="utf-8")))
    names = sorted({row["category"] for row in rows})[:10]
    chosen = [row for row in rows if row["category"] in names]
    rng = random.Random(9)
    wrong = set(rng.sample(range(len(chosen)), len(chosen) // 50))
    frame = pl.DataFrame(
        [
            {
                "record_id": f"rec-{number:05}",
                "key": row["text"].lower(),
                "label": rng.choice([n for n in names if n != row["category"]])
                if number in wrong
                else row["category"],
            }
            for number, row in enumerate(chosen)
        ]
    )
    found = find_suspects(frame, LabelReview())["record_id"].to_list()
    planted = {f"rec-{number:05}" for number in wrong}
    recall = len(planted & set(found)) / len(planted)
    precision = len(planted & set(found)) / len(found)
    print(f"{len(planted)} planted, {len(found)} suspected: precision {precision:.2f}, recall {recall:.2f}")
    record_property("suspects", {"recall": recall, "precision": precision})
    assert recall >= 0.65
    assert precision >= 0.8
