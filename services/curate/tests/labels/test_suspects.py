from __future__ import annotations

import csv
import random
from pathlib import Path

import polars as pl
from tunewheel_contracts.formats.data_quality import LabelReview
from tunewheel_curate.labels.quality import Quality, quality_sections
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
    found = find_suspects(frame, LabelReview(min_examples=100)).found
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
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    assert find_suspects(frame, policy).found.equals(find_suspects(shuffled, policy).found)


def test_nobody_is_suspected_where_there_is_too_little_to_learn_from() -> None:
    frame = labelled(120, flipped=5)
    alone = frame.with_columns(pl.lit("bell").alias("label"))
    unlabelled = frame.with_columns(pl.lit(None, dtype=pl.String).alias("label"))
    for given, policy, why in [
        (frame, LabelReview(min_examples=121), "120 examples bear a label that 5 or more bear"),
        (frame, LabelReview(min_examples=20, suspects=False), "dataset.label_review.suspects is off"),
        (alone, LabelReview(min_examples=20), "all examples bear the same label"),
        (unlabelled, LabelReview(min_examples=20), "0 examples bear a label"),
    ]:
        asked = find_suspects(given, policy)
        assert (asked.found.height, asked.looked_at) == (0, 0)
        assert (asked.why_not or "").startswith(why)


def test_nobody_is_suspected_where_words_do_not_tell_labels_apart() -> None:
    rng = random.Random(8)
    frame = labelled(300).with_columns(pl.Series("label", rng.choices(sorted(TOPICS), k=300)))
    asked = find_suspects(frame, LabelReview(min_examples=100))
    assert (asked.found.height, asked.labelled, asked.looked_at) == (0, 300, 0)
    assert asked.why_not == "the words of under 60% of the examples tell their label"


def test_the_card_says_how_far_it_looked() -> None:
    def card(frame: pl.DataFrame, **policy: int) -> str:
        asked = find_suspects(frame, LabelReview(min_examples=100, **policy))
        return quality_sections(Quality(suspects=asked))[0]

    assert "A classifier judged 120 of 300 labelled examples. It doubts none." in card(
        labelled(300), max_examples=120
    )
    doubted = card(labelled(300, flipped=12))
    assert "A classifier judged 300 of 300 labelled examples." in doubted
    assert "doubts none" not in doubted
    few = card(labelled(60))
    assert "No classifier judged the labels: 60 examples bear a label" in few
    assert "doubts none" not in few
    assert "classifier" not in card(labelled(60).with_columns(pl.lit(None, dtype=pl.String).alias("label")))


def test_rare_labels_do_not_stop_it() -> None:
    rare = pl.DataFrame({"record_id": ["zz"], "key": ["a gong"], "label": ["gong"]})
    found = find_suspects(pl.concat([labelled(150, flipped=6), rare]), LabelReview(min_examples=100)).found
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
    found = find_suspects(frame, LabelReview()).found["record_id"].to_list()
    planted = {f"rec-{number:05}" for number in wrong}
    recall = len(planted & set(found)) / len(planted)
    precision = len(planted & set(found)) / len(found)
    print(f"{len(planted)} planted, {len(found)} suspected: precision {precision:.2f}, recall {recall:.2f}")
    record_property("suspects", {"recall": recall, "precision": precision})
    assert recall >= 0.65
    assert precision >= 0.8
