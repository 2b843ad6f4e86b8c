from __future__ import annotations

import json

import polars as pl
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_curate.examples.formatting import drop_long, format_examples
from tunewheel_curate.examples.tokens import estimating


def test_examples_fit_the_contract(records) -> None:
    frame = records({"title": "Bell", "input": "It is silent.", "output": "Oil it."})
    (row,) = format_examples(
        frame.with_columns(pl.lit(None, dtype=pl.String).alias("label")), system_prompt="Help."
    ).to_dicts()
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
    (row,) = format_examples(
        frame.with_columns(pl.lit(None, dtype=pl.String).alias("label")), system_prompt="Help."
    ).to_dicts()
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
