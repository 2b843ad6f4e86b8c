from __future__ import annotations

import polars as pl
import pytest
from tunewheel_curate.labels.conflicts import drop_conflicts, drop_near_conflicts
from tunewheel_curate.similarity.pairs import SimilarPair


def labelled(records, *rows: tuple[str, str | None]) -> pl.DataFrame:
    frame = records(*({} for _ in rows))
    return frame.with_columns(
        pl.Series("key", [key for key, _ in rows], dtype=pl.String),
        pl.Series("label", [label for _, label in rows], dtype=pl.String),
    )


def test_one_question_under_two_labels_is_dropped_altogether(records) -> None:
    stage = drop_conflicts(labelled(records, ("q", "bell"), ("q", "horn"), ("q", "bell"), ("r", "bell")))
    assert stage.kept["key"].to_list() == ["r"]
    assert stage.funnel.reasons == {"conflicting_label": 3}


def test_an_unverified_record_does_not_take_an_experts_out(records) -> None:
    frame = labelled(records, ("q", "bell"), ("q", "horn"), ("r", "bell"), ("r", "horn"), ("r", "bell"))
    trust = ["expert", "unverified", "expert", "expert", "corrected"]
    stage = drop_conflicts(frame.with_columns(pl.Series("trust", trust)))
    assert stage.kept["label"].to_list() == ["bell"]
    assert stage.kept["key"].to_list() == ["q"]


def test_of_two_similar_questions_the_less_trusted_goes(records) -> None:
    frame = labelled(records, ("a", "bell"), ("b", "horn"), ("c", "gong"))
    frame = frame.with_columns(pl.Series("trust", ["expert", "corrected", "corrected"]))
    assert drop_near_conflicts(frame, [SimilarPair(0, 1, 0.9)]).kept["key"].to_list() == ["a", "c"]


def test_no_label_contradicts_nothing(records) -> None:
    assert drop_conflicts(labelled(records, ("q", None), ("q", "horn"))).kept.height == 2


@pytest.mark.parametrize("trust", ["expert", "corrected", "unverified"])
def test_of_similar_questions_nobody_who_is_trusted_alike_removes_another(records, trust: str) -> None:
    frame = labelled(records, ("a", "bell"), ("b", "horn"), ("c", "bell"), ("d", None))
    frame = frame.with_columns(pl.lit(trust).alias("trust"))
    pairs = [SimilarPair(0, 1, 0.9), SimilarPair(0, 2, 0.9), SimilarPair(1, 3, 0.9)]
    assert drop_near_conflicts(frame, pairs).kept["key"].to_list() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("callers", "labels", "waits"),
    [
        ([None] * 4, ["bell", "bell", "horn", "bell"], ["rec-0002"]),
        (
            ["a", "b", "c", "m", "m", "m", "m"],
            ["bell"] * 3 + ["horn"] * 4,
            [f"rec-000{n}" for n in (3, 4, 5, 6)],
        ),
        (["a", "b", "m"], ["bell", "bell", "horn"], []),
        (["a", "m", "m", "m"], ["bell", "horn", "horn", "horn"], []),
    ],
)
def test_one_against_many_waits_and_a_caller_has_one_vote(records, callers, labels, waits) -> None:
    frame = labelled(records, *(("q", label) for label in labels))
    frame = frame.with_columns(pl.Series("principal", callers, dtype=pl.String))
    stage = drop_conflicts(frame)
    assert stage.dropped.filter(pl.col("reason") == "conflict")["record_id"].to_list() == waits
    assert stage.kept["label"].to_list() == ([label for label in labels if label == "bell"] if waits else [])
    assert [name for part in stage.waiting for name in part["record_id"]] == waits


def test_of_records_trusted_alike_the_released_one_stays(records) -> None:
    frame = labelled(records, ("q", "bell"), ("q", "horn"))
    assert drop_conflicts(frame, ("rec-0001",)).kept["label"].to_list() == ["horn"]
    lower = frame.with_columns(pl.Series("trust", ["expert", "unverified"]))
    assert drop_conflicts(lower, ("rec-0001",)).kept["label"].to_list() == ["bell"]
