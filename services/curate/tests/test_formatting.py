from __future__ import annotations

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_curate.formatting import drop_long, estimated_tokens, format_examples, user_content


def test_examples_fit_the_contract(records) -> None:
    frame = records({"title": "Bell", "input": "It is silent.", "output": "Oil it."})
    from polars import String, lit

    (row,) = format_examples(
        frame.with_columns(lit(None, dtype=String).alias("label")), system_prompt="Help."
    ).to_dicts()
    example = ChatExample.model_validate(row)
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Help."),
        ("user", "Bell\n\nIt is silent."),
        ("assistant", "Oil it."),
    ]
    assert example.record_ids == ("rec-0000",)


def test_the_subject_is_optional() -> None:
    assert user_content("", "body") == "body"


def test_tokens_are_rounded_up() -> None:
    assert estimated_tokens("abcd", "e") == 2


def test_long_conversations_are_dropped(records) -> None:
    stage = drop_long(records({"input": "x" * 400}, {}), system_prompt="", max_tokens=100)
    assert stage.funnel.reasons == {"too_long": 1}
