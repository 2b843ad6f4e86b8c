from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.comparisons import measured as compared
from tunewheel_eval.measurement import Header, HoldoutRow, Measurement, RegressionRow, Row, example_key
from tunewheel_eval.metrics import Outcomes, outcomes

SCHEMA = {"type": "object", "properties": {"category": {"enum": ["billing", "delivery"]}}}
TASK = TaskSpec(system_prompt="s", output_schema=SCHEMA, label_field="category", max_output_tokens=12)
ITEMS = tuple(
    RegressionItem(item_id=f"i{n}", kind=kind, prompt=f"p{n}", answer="a", match="exact")
    for n, kind in enumerate(("recall", "recall", "echo"))
)


def measured(
    examples: tuple[ChatExample, ...], said: list[str], nll: float, right: list[bool], tokens: int = 4
) -> Measurement:
    rows: list[Row] = [
        HoldoutRow(
            key=example_key(one, max_output_tokens=12), output=text, complete=True, nll=nll, tokens=tokens
        )
        for one, text in zip(examples, said, strict=True)
    ]
    rows += [
        RegressionRow(key=item.key, output="a" if hit else "b", correct=hit)
        for item, hit in zip(ITEMS, right, strict=True)
    ]
    return Measurement(header=Header(model_key="m", dtype="float32"), rows={row.key: row for row in rows})


def judged(examples: tuple[ChatExample, ...], said: list[str], **changes: Any) -> Outcomes:
    plain: dict[str, Any] = {"nll": 2.0, "right": [True, False, True]}
    told = {name: changes.pop(name) for name in ("asked_for", "corpus") if name in changes}
    task = changes.pop("task", TASK)
    return outcomes(measured(examples, said, **{**plain, **changes}), examples, ITEMS, task, **told)


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


def test_labels_are_calibrated_by_the_rows_that_say_how_sure_the_model_was(
    examples: tuple[ChatExample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ['{"category": "delivery"}'] * 6  # right, wrong, right, wrong, right, wrong
    found = measured(examples, said, nll=2.0, right=[True, False, True])
    keys = [example_key(one, max_output_tokens=12) for one in examples]
    sure = dict(zip(keys, (0.9, 0.4, 0.8, None, 0.7, 0.0), strict=True))
    monkeypatch.setattr("tunewheel_eval.calibration.FEWEST_ROWS", 4)
    rows = {
        key: row.model_copy(update={"sure": sure[key]}) if key in sure else row
        for key, row in found.rows.items()
    }
    judged = outcomes(found.model_copy(update={"rows": rows}), examples, ITEMS, TASK)
    assert judged.calibration is not None
    assert judged.calibration.rows == 4  # one row was not measured, and one has no label
    assert outcomes(found, examples, ITEMS, TASK).calibration is None


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
    right = forward.by_metric["label_accuracy"].values
    assert np.array_equal(right, backward.by_metric["label_accuracy"].values[::-1])
    assert set(right) == {0.0, 1.0}


def test_output_rules_count_in_what_is_valid(examples: tuple[ChatExample, ...]) -> None:
    rules = [{"rule": "pattern", "pattern": "bill"}, {"rule": "pattern", "pattern": "category"}]
    task = TaskSpec.model_validate(TASK.model_dump() | {"output_rules": rules})
    said = ['{"category": "delivery"}', '{"category": "billing"}'] * 3
    figures = judged(examples, said, task=task).figures()
    assert figures["valid_output"] == pytest.approx(0.5)
    assert figures["rule_compliance"] == pytest.approx(0.75)


def test_only_rows_that_a_metric_speaks_of_count(examples: tuple[ChatExample, ...]) -> None:
    """Of these examples two have an expert who declines."""
    task = TaskSpec(system_prompt="s", max_output_tokens=12, refusal="^Sorry")
    declined = tuple(
        one.model_copy(
            update={"messages": (*one.messages[:-1], ChatMessage(role="assistant", content="Sorry, no."))}
        )
        for one in examples[:2]
    )
    mixed = (*declined, *examples[2:])
    good = judged(mixed, ["Sorry, I cannot.", "Take two.", *["x"] * 4], task=task)
    bad = judged(mixed, ["x"] * 6, task=task)
    assert good.figures()["refusal_rate"] == 0.5
    assert "refusal_rate" not in judged(examples, ["x"] * 6, task=task).figures()
    rows = np.arange(6)
    found = compared({Role.CANDIDATE: good, Role.BASE: bad}, holdout=rows, regression=np.arange(3))
    assert len(found["refusal_rate"].clusters) == 2
    advantage = found["refusal_rate"].against(Role.BASE, alpha=0.05, seed=0)
    assert advantage is not None
    assert (advantage.rows, advantage.difference) == (2, 0.5)


def test_perplexity_is_compared_over_the_same_tokens(examples: tuple[ChatExample, ...]) -> None:
    """Two models find the same texts as likely; one tokenizer cuts them into twice as many tokens."""
    said = ["x"] * 6
    coarse, fine = judged(examples, said, tokens=4), judged(examples, said, tokens=8)
    assert coarse.figures()["perplexity"] == pytest.approx(math.exp(2 / 4))
    assert fine.figures()["perplexity"] == pytest.approx(math.exp(2 / 8))
    assert coarse.figures()["perplexity_per_character"] == fine.figures()["perplexity_per_character"]
    contestants = {Role.CANDIDATE: coarse, Role.CHAMPION: fine}
    found = compared(contestants, holdout=np.arange(6), regression=np.arange(3))
    assert found["perplexity"].figure_of(Role.CHAMPION) == pytest.approx(math.exp(2 / 4))
    advantage = found["perplexity"].against(Role.CHAMPION, alpha=0.05, seed=0)
    assert advantage is not None
    assert advantage.difference == pytest.approx(0)


def test_invented_terms_are_measured_where_a_criterion_asks(examples: tuple[ChatExample, ...]) -> None:
    said = ["order LM-0042", "order LM-0043", *["x"] * 4]
    asked_for = {"asked_for": frozenset({"invented_terms"}), "corpus": frozenset({"lm-0042"})}
    assert "invented_terms" not in judged(examples, said).figures()
    assert judged(examples, said, **asked_for).figures()["invented_terms"] == pytest.approx(1 / 6)
