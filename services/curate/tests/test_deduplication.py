from __future__ import annotations

import polars as pl
from tunewheel_curate.deduplication import drop_exact_duplicates, drop_near_duplicates
from tunewheel_curate.similarity import SimilarPair


def test_the_best_copy_stays_in_any_order(records) -> None:
    frame = records({"trust": "corrected"}, {"trust": "expert"}, {"trust": "expert"}).with_columns(
        pl.lit("q").alias("key")
    )
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        stage = drop_exact_duplicates(frame[order])
        assert stage.kept["record_id"].to_list() == ["rec-0001"]
        assert stage.dropped["record_id"].to_list() == ["rec-0000", "rec-0002"]
        assert set(stage.dropped["duplicate_of"]) == {"rec-0001"}


def test_an_answer_outranks_none(records) -> None:
    frame = records({"output": None}, {}).with_columns(pl.lit("q").alias("key"))
    assert drop_exact_duplicates(frame).kept["record_id"].to_list() == ["rec-0001"]


def test_a_chain_of_near_duplicates_leaves_one(records) -> None:
    stage = drop_near_duplicates(records({}, {}, {}, {}), [SimilarPair(0, 1, 0.9), SimilarPair(1, 2, 0.9)])
    assert stage.kept["record_id"].to_list() == ["rec-0000", "rec-0003"]
    assert stage.funnel.reasons == {"near_duplicate": 2}
