from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from tunewheel_curate.duplicates.questions import drop_clusters, drop_exact_duplicates
from tunewheel_curate.similarity.pairs import SimilarPair

MAY = datetime(2026, 5, 1, tzinfo=UTC)


def test_the_best_copy_stays_in_any_order(records) -> None:
    frame = records({"trust": "corrected"}, {"trust": "expert"}, {"trust": "expert"}).with_columns(
        pl.lit("q").alias("key")
    )
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        stage = drop_exact_duplicates(frame[order])
        assert stage.kept["record_id"].to_list() == ["rec-0002"]
        assert stage.dropped["record_id"].to_list() == ["rec-0000", "rec-0001"]
        assert set(stage.dropped["duplicate_of"]) == {"rec-0002"}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"occurred_at": MAY}, {"occurred_at": MAY + timedelta(days=1)}),
        ({"occurred_at": None}, {"occurred_at": MAY}),
        ({"occurred_at": MAY}, {"occurred_at": None, "published_at": MAY + timedelta(days=1)}),
        ({"published_at": MAY}, {"published_at": MAY + timedelta(seconds=1)}),
        ({"record_id": "rec-b", "published_at": MAY}, {"record_id": "rec-a", "published_at": MAY}),
    ],
)
def test_of_equal_trust_the_newest_stays(records, older, newer) -> None:
    for rows in ((older, newer), (newer, older)):
        frame = records(*rows).with_columns(pl.lit("q").alias("key"))
        kept = drop_exact_duplicates(frame).kept
        assert kept["record_id"].to_list() == [frame["record_id"][rows.index(newer)]]


def test_trust_outranks_recency(records) -> None:
    frame = records({"trust": "expert"}, {"trust": "corrected", "occurred_at": MAY})
    kept = drop_exact_duplicates(frame.with_columns(pl.lit("q").alias("key"))).kept
    assert kept["trust"].to_list() == ["expert"]


def test_an_answer_outranks_none(records) -> None:
    frame = records({"output": None}, {}).with_columns(pl.lit("q").alias("key"))
    assert drop_exact_duplicates(frame).kept["record_id"].to_list() == ["rec-0001"]


def test_a_chain_of_near_duplicates_leaves_one(records) -> None:
    pairs = [SimilarPair(0, 1, 0.9), SimilarPair(1, 2, 0.9)]
    stage = drop_clusters("near_duplicates", records({}, {}, {}, {}), pairs, reason="near_duplicate")
    assert stage.kept["record_id"].to_list() == ["rec-0002", "rec-0003"]
    assert stage.funnel.reasons == {"near_duplicate": 2}


def test_two_hundred_thousand_identical_tickets_leave_one(records) -> None:
    count = 200_000
    flood = pl.concat([records({"input": "the same again"})] * count).with_columns(
        pl.format("rec-{}", pl.int_range(count)).alias("record_id"), pl.lit("the same again").alias("key")
    )
    stage = drop_exact_duplicates(flood)
    assert stage.kept.height == 1
    assert stage.funnel.reasons == {"exact_duplicate": count - 1}
