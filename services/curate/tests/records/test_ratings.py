"""Thumbs through a whole build: no trace where nobody asks for them, trusted least where somebody does."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.dataset import Negative
from tunewheel_curate.pipeline import build
from tunewheel_curate.versions.versioning import rows_sha256, write_version

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
    fate = dict(
        build(frame, spec(ratings=True, corrections="train"))
        .lineage.select("record_id", "reason")
        .iter_rows()
    )
    assert (fate["rec-0030"], fate["rec-thumb-01"]) == (None, "replaced")


def test_answers_rated_down_are_kept_to_be_avoided(records, varied_rows, spec, tmp_path) -> None:
    rows = varied_rows(30)
    first = build(records(*rows), spec(ratings=True))
    held = first.split.holdout["record_ids"].explode().to_list()
    trained = first.split.train["record_ids"].explode().to_list()
    texts = {f"rec-{number:04}": row["input"] for number, row in enumerate(rows)}
    down = [
        thumb("down", 1, rated_output="no JSON at all, mail a@example.com"),
        thumb("down", 2, input=texts[held[0]]),
        thumb("down", 3, input=texts[held[0]] + " please"),
        thumb("down", 4, group=f"customer-{int(held[0][-4:])}"),
        thumb("down", 5, input=texts[trained[0]], rated_output=rows[int(trained[0][-4:])]["output"]),
        thumb("down", 6, source_id="chat-1b", input=thumb("down", 1)["input"],
              rated_output="no JSON at all, mail a@example.com"),
        thumb("down", 7),
        thumb("up", 7, record_id="rec-thumb-up", rated_output=HORN),
    ]  # fmt: skip
    made = build(records(*rows, *down), spec(ratings=True))
    assert made.split.holdout["example_id"].to_list() == first.split.holdout["example_id"].to_list()
    assert made.negatives is not None
    assert {stage.stage: stage.model_dump() for stage in made.funnel}["negatives"] == {
        "stage": "negatives", "entered": 6, "left": 1,
        "reasons": {"accepted": 1, "contaminated: held-out questions": 1, "held_out": 2, "repeated": 1},
    }  # fmt: skip
    manifest = write_version(made, spec(ratings=True), tmp_path)
    assert manifest.negatives is not None
    (row,) = pl.read_parquet(tmp_path / "negatives.parquet").to_dicts()
    negative = Negative.model_validate(row)
    assert negative.rejected == "no JSON at all, mail <EMAIL_ADDRESS>"
    assert [message.role for message in negative.prompt] == ["system", "user"]
    assert (manifest.counts.negatives, negative.trust) == (1, "rated")
    assert "1 answers that users rated down" in (tmp_path / "card.md").read_text()
    assert rows_sha256(made.split, made.preferences) != manifest.rows_sha256
