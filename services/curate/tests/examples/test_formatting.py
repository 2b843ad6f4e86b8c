from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_curate.cleaning.normalization import cleaned_history
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.examples.formatting import (
    asked_text,
    conversation,
    drop_long,
    examples_of,
    with_messages,
    with_name,
)
from tunewheel_curate.examples.tokens import estimating
from tunewheel_curate.stage import drafted


def formatted(records: pl.DataFrame) -> list[dict[str, Any]]:
    rows = drafted(records)
    named = with_name(rows, system_prompt="Help.", noun="ex").kept
    return examples_of(with_messages(named, system_prompt="Help.").kept).to_dicts()


def test_examples_fit_the_contract(records) -> None:
    frame = records({"title": "Bell", "input": "It is silent.", "output": "Oil it."})
    (row,) = formatted(frame)
    example = ChatExample.model_validate(row)
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Help."),
        ("user", "Bell\n\nIt is silent."),
        ("assistant", "Oil it."),
    ]
    assert example.record_ids == ("rec-0000",)


def test_earlier_turns_come_before_the_question(records) -> None:
    history = [
        {"role": "user", "content": "It is silent."},
        {"role": "assistant", "content": "Since when?"},
        {"role": "user", "content": "Sunday."},
    ]
    frame = records(
        {"title": "Bell", "input": "And it rusts.", "output": "x", "history": json.dumps(history)}
    )
    (row,) = formatted(frame)
    assert [(m["role"], m["content"]) for m in row["messages"]] == [
        ("system", "Help."),
        ("user", "Bell\n\nIt is silent."),
        ("assistant", "Since when?"),
        ("user", "Sunday.\n\nAnd it rusts."),
        ("assistant", "x"),
    ]


def test_long_conversations_are_dropped(records) -> None:
    stage = drop_long(
        records({"input": "x" * 400}, {}), system_prompt="", max_tokens=100, tokens=estimating("m", "none")
    )
    assert stage.funnel.reasons == {"too_long": 1}


TURNS = [
    {"role": "user", "content": "My mail is anna@example.com."},
    {"role": "assistant", "content": "I wrote to anna@example.com."},
]
HISTORY = json.dumps(TURNS)


def test_the_subject_opens_the_conversation() -> None:
    assert conversation("", "body", None) == [{"role": "user", "content": "body"}]
    assert conversation("Bell", "body", None) == [{"role": "user", "content": "Bell\n\nbody"}]
    turns = conversation("Bell", "body", HISTORY)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"] == f"Bell\n\n{TURNS[0]['content']}"


def test_equal_last_questions_of_different_threads_differ() -> None:
    assert asked_text("", "Yes please.", HISTORY) != asked_text("", "Yes please.", None)


def test_foreign_roles_and_empty_turns_are_left_out() -> None:
    turns = [{"role": "system", "content": "be rude"}, {"role": "assistant", "content": "Hi"}]
    assert cleaned_history(json.dumps(turns), None) is None
    assert cleaned_history(None, None) is None


def test_turns_are_redacted_with_their_record(records) -> None:
    frame = records({"input": "Is anna@example.com right?", "history": HISTORY}, {"input": "no mail at all"})
    stage = redact_records(frame, PiiPolicy())
    assert stage.counts == {"EMAIL_ADDRESS": 3}
    assert stage.kept["record_id"].to_list() == ["rec-0000", "rec-0001"]
    assert json.loads(stage.kept["history"][0]) == [
        {"role": "user", "content": "My mail is <EMAIL_ADDRESS>."},
        {"role": "assistant", "content": "I wrote to <EMAIL_ADDRESS>."},
    ]
    assert stage.kept["history"][1] is None


@pytest.mark.parametrize("asked", ["Is it right?", "Is anna@example.com right?"])
def test_personal_data_in_a_turn_rejects_the_record(records, asked: str) -> None:
    frame = records({"input": asked, "history": HISTORY}, {})
    stage = redact_records(frame, PiiPolicy(action="reject"))
    assert stage.funnel.model_dump() == {
        "stage": "redaction", "entered": 2, "left": 1, "reasons": {"pii": 1},
    }  # fmt: skip
    assert stage.dropped["record_id"].to_list() == ["rec-0000"]


def test_without_threads_nothing_changes(records) -> None:
    assert redact_records(records({}, {}), PiiPolicy()).kept["history"].to_list() == [None, None]
