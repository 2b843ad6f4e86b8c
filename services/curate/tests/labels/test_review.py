from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from tunewheel_curate.examples.output_validation import spelt_answers, validate_outputs
from tunewheel_curate.labels.conflicts import drop_conflicts
from tunewheel_curate.labels.review import (
    REVIEW_SCHEMA,
    answer_conflicting,
    conflicting,
    near_answer_conflicting,
    near_conflicting,
    off_schema,
    review_counts,
    review_list,
    suspected,
)
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.pairs import SimilarPair

JUNE = datetime(2026, 6, 1, tzinfo=UTC)


def labelled(frame: pl.DataFrame, *labels: str | None, keys: list[str] | None = None) -> pl.DataFrame:
    return frame.with_columns(
        pl.Series("label", labels, dtype=pl.String),
        pl.Series("key", keys or [f"k{n}" for n in range(frame.height)], dtype=pl.String),
    )


def test_conflicting_experts_are_named_with_time_and_label(records) -> None:
    frame = labelled(
        records(
            {"validated_by": "ann", "validated_at": JUNE, "occurred_at": JUNE},
            {"validated_by": "bob", "occurred_at": JUNE},  # created then; nobody says when it was validated
            {},
        ),
        "bell", "horn", "bell", keys=["q", "q", "other"],
    )  # fmt: skip
    listed = conflicting(frame, drop_conflicts(frame))
    assert listed.schema == pl.Schema(REVIEW_SCHEMA)
    assert listed["cluster"].to_list() == ["rec-0000", "rec-0000"]
    assert listed["validated_by"].to_list() == ["ann", "bob"]
    assert listed["label"].to_list() == ["bell", "horn"]
    assert listed["validated_at"].to_list() == [JUNE, None]
    assert listed["occurred_at"].to_list() == [JUNE, JUNE]
    assert listed["labels_in_cluster"].to_list() == [["bell", "horn"]] * 2


def test_whom_a_less_trusted_record_contradicts_is_listed_beside_it(records) -> None:
    frame = labelled(records({"trust": "expert"}, {"trust": "unverified"}), "bell", "horn", keys=["q", "q"])
    listed = conflicting(frame, drop_conflicts(frame))
    assert listed.select("record_id", "trust").rows() == [("rec-0000", "expert"), ("rec-0001", "unverified")]


def test_experts_who_differ_in_more_than_words_are_listed(records, spec) -> None:
    def answer(priority: str, reply: str) -> dict[str, str]:
        output = {"category": "bell", "priority": priority, "reply": reply}
        return {"output": json.dumps(output), "trust": "expert"}

    low, urgent, reworded = answer("low", "Wait."), answer("urgent", "Wait."), answer("low", "Please wait.")
    frame = labelled(
        records(low, urgent, low, reworded, low, urgent | {"trust": "corrected"}),
        *["bell"] * 6, keys=["q", "q", "r", "r", "s", "s"],
    )  # fmt: skip
    properties = {"category": {"enum": ["bell"]}, "priority": {"type": "string", "enum": ["low", "urgent"]}}
    schema = {"properties": properties | {"reply": {"type": "string"}}}
    task = spec().task.model_copy(update={"output_schema": schema})
    listed = answer_conflicting(frame, task)
    assert listed.select("record_id", "kind", "cluster", "output").rows() == [
        ("rec-0000", "answer_conflict", "rec-0000", low["output"]),
        ("rec-0001", "answer_conflict", "rec-0000", urgent["output"]),
    ]
    free = answer_conflicting(frame, task.model_copy(update={"output_schema": None}))
    assert free["record_id"].to_list() == ["rec-0000", "rec-0001", "rec-0002", "rec-0003"]


def test_experts_who_answer_nearly_the_same_question_differently_are_listed(records, spec) -> None:
    def answer(priority: str, reply: str = "Wait.", **more: str) -> dict[str, str]:
        output = {"category": "bell", "priority": priority, "reply": reply}
        return {"output": json.dumps(output), "trust": "expert"} | more

    low = answer("low")
    frame = labelled(
        records(
            low, answer("urgent"), answer("low", "Please wait."),  # alike: the second differs from both
            low, low,  # alike and agreed
            low, answer("urgent", trust="corrected"),  # nobody to be asked
            low, answer("urgent"),  # a conflict of labels, listed as such
        ),
        *["bell"] * 8, "horn",
    )  # fmt: skip
    edges = [(0, 1), (1, 2), (0, 2), (3, 4), (5, 6), (7, 8)]
    properties = {"category": {"enum": ["bell"]}, "priority": {"type": "string", "enum": ["low", "urgent"]}}
    task = spec().task.model_copy(
        update={"output_schema": {"properties": properties | {"reply": {"type": "string"}}}}
    )
    listed = near_answer_conflicting(frame, [SimilarPair(*edge, 0.9) for edge in edges], task)
    assert listed.schema == pl.Schema(REVIEW_SCHEMA)
    assert listed.select("record_id", "kind", "cluster").rows() == [
        (name, "answer_conflict", "rec-0000") for name in ("rec-0000", "rec-0001", "rec-0002")
    ]
    assert near_answer_conflicting(frame, [], task).is_empty()


def test_a_build_lists_nearly_equal_questions_whose_answers_differ(records, varied_rows, spec) -> None:
    text = "the bell of my bicycle that came on Monday does not ring when I press the little lever on it"
    said = [{"output": json.dumps({"category": "bell", "reply": reply})} for reply in ("Oil it.", "Send it.")]
    free = spec().task.output_schema | {"properties": {"category": {"enum": ["bell", "horn"]}, "reply": {}}}
    own = spec().model_copy(update={"task": spec().task.model_copy(update={"output_schema": free})})
    alike = [said[0] | {"input": text}, said[1] | {"input": text + " today"}]
    made = build(records(*varied_rows(20), *alike), own)
    listed = made.quality.review.filter(pl.col("kind") == "answer_conflict")
    assert listed["record_id"].to_list() == ["rec-0020", "rec-0021"]
    assert made.counts.examples == 22


def test_near_conflicts_form_clusters(records) -> None:
    frame = labelled(records({}, {}, {}, {}, {}), "bell", "horn", "bell", "bell", None)
    pairs = [SimilarPair(0, 1, 0.9), SimilarPair(1, 2, 0.9), SimilarPair(2, 3, 0.9), SimilarPair(3, 4, 0.9)]
    listed = near_conflicting(frame, pairs)
    assert listed["record_id"].to_list() == ["rec-0000", "rec-0001", "rec-0002"]
    assert set(listed["cluster"]) == {"rec-0000"}


def test_labels_outside_the_schema_are_listed(records, spec) -> None:
    task = spec().task
    frame = records(
        {"output": json.dumps({"category": "gong"}), "validated_by": "ann"},
        {"output": json.dumps({"category": "bell", "reply": 3})},
        {"output": json.dumps({"category": ["bell"]})},
        {},
    )
    listed = off_schema(frame, validate_outputs(frame, task), task)
    assert listed.select("record_id", "label", "validated_by").rows() == [
        ("rec-0000", "gong", "ann"),
        ("rec-0002", '["bell"]', None),
    ]


@pytest.mark.parametrize(
    ("answer", "listed"),
    [
        ({"category": "gong"}, True),
        ({"category": "gong", "reply": 3}, True),
        ({"category": " bell"}, False),
        ({"category": None}, False),
        ({"reply": "Oil it."}, False),
        ("gong", False),
    ],
)
def test_an_unknown_label_is_listed_whatever_else_is_wrong(records, spec, answer, listed) -> None:
    known = {"$ref": "#/$defs/part"}
    schema = {
        "type": "object",
        "required": ["category", "reply"],
        "properties": {"category": known, "reply": {"type": "string"}},
        "$defs": {"part": {"enum": ["bell", "horn"]}},
    }
    task = spec().task.model_copy(update={"output_schema": schema})
    frame = records({"output": json.dumps(answer)}, {"output": "no JSON"})
    frame = frame.with_columns(spelt_answers(frame["output"], task))
    checked = validate_outputs(frame, task)
    assert checked.kept.is_empty()
    found = off_schema(frame, checked, task)["record_id"].to_list()
    assert found == (["rec-0000"] if listed else [])


def test_the_list_is_ordered_and_counted(records, spec) -> None:
    frame = labelled(records({}, {}, {}), "bell", "horn", "bell", keys=["q", "q", "r"])
    doubts = pl.DataFrame({"record_id": ["rec-0002"], "suggested": ["horn"], "confidence": [0.01]})
    whole = review_list([suspected(frame, doubts), conflicting(frame, drop_conflicts(frame))])
    assert whole["kind"].to_list() == ["conflict", "conflict", "suspect"]
    assert whole.row(2, named=True)["suggested"] == "horn"
    assert review_counts(whole) == {"conflict": 2, "suspect": 1}
    assert review_list([]).height == 0
    assert review_counts(review_list([])) == {}
