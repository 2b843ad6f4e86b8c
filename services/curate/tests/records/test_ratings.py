"""Thumbs through a whole build: no trace where nobody asks for them, trusted least where somebody does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_curate.pipeline import build
from tunewheel_curate.versions.versioning import rows_sha256

BELL, HORN = json.dumps({"category": "bell"}), json.dumps({"category": "horn"})


def thumb(rating: str, number: int, **more: Any) -> dict[str, Any]:
    text = " ".join(f"r{number}x{word}" for word in range(12))
    return {
        "kind": "feedback", "source_id": f"chat-{number}", "record_id": f"rec-thumb-{number:02}",
        "input": text, "output": None, "rating": rating, "rated_output": BELL, "trust": "unverified",
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def rated(records, varied_rows):
    """Thirty tickets, thumbs up for ten answers, and one for another answer to a ticket's question."""
    rows = varied_rows(30)
    ups = [thumb("up", number) for number in range(10)]
    return records(*rows, *ups, thumb("up", 10, input=rows[0]["input"], rated_output=HORN))


def test_a_build_that_does_not_ask_for_ratings_is_as_if_there_were_none(rated, spec) -> None:
    with_them, without = build(rated, spec()), build(rated[:30], spec())
    assert rows_sha256(with_them.split) == rows_sha256(without.split)
    assert with_them.lineage.equals(without.lineage)
    assert (with_them.funnel, with_them.counts) == (without.funnel, without.counts)
    assert "ratings" not in spec().model_dump_json(), "specs keep the hashes they had"
    assert spec(ratings=True).sha256 != spec().sha256


def test_answers_rated_up_train_and_are_never_held_out(rated, spec) -> None:
    made = build(rated, spec(ratings=True))
    learnt = made.split.train.filter(made.split.train["trust"] == "rated")
    assert made.split.holdout["trust"].unique().to_list() == ["expert"]
    reasons = {reason: count for stage in made.funnel for reason, count in stage.reasons.items()}
    assert learnt.height + reasons.get("rated", 0) == 10
    assert learnt.height >= 5
    assert learnt["messages"].to_list()[0][-1]["content"] == BELL
    fate = dict(made.lineage.select("record_id", "reason").iter_rows())
    assert fate["rec-thumb-10"] == "conflicting_label", "an expert knows better"
    assert fate["rec-0000"] is None


def test_a_correction_replaces_the_thumb_that_came_with_it(records, varied_rows, spec) -> None:
    said = {"kind": "feedback", "source_id": "chat-1", "trust": "corrected", "output": HORN}
    text = thumb("up", 1)["input"]
    frame = records(*varied_rows(30), said | {"input": text}, thumb("up", 1))
    fate = dict(build(frame, spec(ratings=True)).lineage.select("record_id", "reason").iter_rows())
    assert (fate["rec-0030"], fate["rec-thumb-01"]) == (None, "replaced")
