from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.measurement import Header, HoldoutRow, Measurement, RegressionRow, Row, example_key
from tunewheel_eval.metrics import Outcomes, outcomes

SCHEMA = {"type": "object", "properties": {"category": {"enum": ["billing", "delivery"]}}}
TASK = TaskSpec(system_prompt="s", output_schema=SCHEMA, label_field="category", max_output_tokens=12)
ITEMS = tuple(
    RegressionItem(item_id=f"i{n}", kind=kind, prompt=f"p{n}", answer="a", match="exact")
    for n, kind in enumerate(("recall", "recall", "echo"))
)


def measured(
    examples: tuple[ChatExample, ...], said: list[str], nll: float, right: list[bool]
) -> Measurement:
    rows: list[Row] = [
        HoldoutRow(key=example_key(one, max_output_tokens=12), output=text, complete=True, nll=nll, tokens=4)
        for one, text in zip(examples, said, strict=True)
    ]
    rows += [
        RegressionRow(key=item.key, output="a" if hit else "b", correct=hit)
        for item, hit in zip(ITEMS, right, strict=True)
    ]
    return Measurement(header=Header(model_key="m", dtype="float32"), rows={row.key: row for row in rows})


def judged(examples: tuple[ChatExample, ...], said: list[str], **changes: Any) -> Outcomes:
    plain: dict[str, Any] = {"nll": 2.0, "right": [True, False, True]}
    task = changes.pop("task", TASK)
    return outcomes(measured(examples, said, **{**plain, **changes}), examples, ITEMS, task)


def test_figures_of_a_mixed_bag(examples: tuple[ChatExample, ...]) -> None:
    # Expected labels: delivery, billing, delivery, billing, delivery, billing.
    said = [
        '{"category": "delivery"}',  # right
        '{"category": "delivery"}',  # valid, wrong
        '{"category": "other"}',  # not valid
        "billing",  # not JSON
        '{"category": "delivery"}',  # right
        "",
    ]
    figures = judged(examples, said).figures()
    assert figures["valid_output"] == pytest.approx(3 / 6)
    assert figures["label_accuracy"] == pytest.approx(2 / 6)
    assert figures["perplexity"] == pytest.approx(math.exp(0.5))
    assert figures["regression_accuracy"] == pytest.approx(2 / 3)
    assert (figures["examples"], figures["regression_items"]) == (6, 3)
    assert judged(examples, said).by_kind() == {"echo": 1.0, "recall": 0.5}


def test_only_what_the_task_defines_is_measured(examples: tuple[ChatExample, ...]) -> None:
    figures = judged(examples, ["x"] * 6, task=TaskSpec(system_prompt="s", max_output_tokens=12)).figures()
    assert "valid_output" not in figures
    assert "label_accuracy" not in figures
    assert "rouge_l" in figures


def test_incomplete_measurement_is_an_error(examples: tuple[ChatExample, ...]) -> None:
    some = measured(examples, ["x"] * 6, 1.0, [True] * 3).only([ITEMS[0].key])
    with pytest.raises(KeyError):
        outcomes(some, examples, ITEMS, TASK)


def test_outcomes_follow_the_order_of_the_examples(examples: tuple[ChatExample, ...]) -> None:
    said = [json.dumps({"category": "delivery"})] * 6
    forward, backward = judged(examples, said), judged(examples[::-1], said[::-1])
    assert forward.label_right is not None
    assert backward.label_right is not None
    assert np.array_equal(forward.label_right, backward.label_right[::-1])
