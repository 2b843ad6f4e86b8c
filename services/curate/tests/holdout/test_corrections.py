"""What reviewers correct was held out: it stays so, with the corrected answer, and never trains."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import build


def turns(row: dict[str, Any]) -> list[dict[str, str]]:
    return [turn for turn in row["messages"] if turn["role"] != "system"]


def corrected(row: dict[str, Any], category: str) -> dict[str, Any]:
    """A record as ingest makes it of eval's ``example.published``: what the reviewer saw, as it was shown."""
    *before, asked, _ = turns(row)
    return {
        "kind": "example",
        "source_id": f"correction-{row['example_id']}",
        "group": f"correction-{row['example_id']}",
        "input": asked["content"],
        "history": json.dumps(before) if before else None,
        "output": json.dumps({"category": category, "reply": "as it should be"}),
        "attributes": '{"corrected_in_review":"review-1"}',
    }


def rows_of(varied_rows: Any) -> list[dict[str, Any]]:
    """Tickets with a subject, personal data, and every other one with a conversation before the question."""
    rows = [
        row | {"title": f"About {n}", "input": f"  {row['input']} \n write to person{n}@example.com "}
        for n, row in enumerate(varied_rows(40))
    ]
    for n in range(0, 40, 2):
        said = [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "yes?"}]
        rows[n] |= {"history": json.dumps(said), "title": ""}
    return rows


@pytest.mark.parametrize("label", ["the same label", "another label"])
def test_a_corrected_question_stays_held_out_with_the_corrected_answer(
    records: Any, spec: Any, varied_rows: Any, label: str
) -> None:
    rows, declared = rows_of(varied_rows), spec()
    first = build(records(*rows), declared)
    held = first.split.holdout.to_dicts()
    assert len(held) >= 3
    for row in held:
        was = json.loads(row["messages"][-1]["content"])["category"]
        other = {"bell": "horn", "horn": "bell"}[was]
        row["corrected"] = was if label == "the same label" else other
    more = [corrected(row, row["corrected"]) for row in held]
    second = build(records(*rows, *more), declared, Inputs(memory=first.memory))
    asked = {json.dumps(turns(row)[:-1]): row["corrected"] for row in held}
    answers = {
        json.dumps(turns(row)[:-1]): json.loads(row["messages"][-1]["content"])
        for row in second.split.holdout.to_dicts()
    }
    for question, category in asked.items():
        assert answers[question] == {"category": category, "reply": "as it should be"}
    trained = {json.dumps(turns(row)[:-1]) for row in second.split.train.to_dicts()}
    assert not trained & set(asked)


def test_reviewers_who_contradict_each_other_leave_neither_and_are_listed(
    records: Any, spec: Any, varied_rows: Any
) -> None:
    rows, declared = rows_of(varied_rows), spec()
    first = build(records(*rows), declared)
    row = first.split.holdout.to_dicts()[0]
    two = [corrected(row, "bell"), corrected(row, "horn") | {"source_id": "correction-2"}]
    second = build(records(*rows, *two), declared, Inputs(memory=first.memory))
    question = json.dumps(turns(row)[:-1])
    everything = pl.concat([second.split.train, second.split.holdout]).to_dicts()
    assert question not in {json.dumps(turns(one)[:-1]) for one in everything}
    assert "conflict" in second.quality.review["kind"].to_list()


def test_only_an_expert_s_correction_counts_more(records: Any, spec: Any, varied_rows: Any) -> None:
    rows, declared = rows_of(varied_rows), spec()
    first = build(records(*rows), declared)
    row = first.split.holdout.to_dicts()[0]
    nobody = corrected(row, "bell") | {"trust": "unverified"}
    second = build(records(*rows, nobody), declared, Inputs(memory=first.memory))
    assert row["messages"] in [one["messages"] for one in second.split.holdout.to_dicts()]
