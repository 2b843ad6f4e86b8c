"""How far two measurements of one model lie apart, where tokens are drawn."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.spec import EvaluationSpec, TaskSpec
from tunewheel_eval.measurement import Header, HoldoutRow, Measurement, RepeatRow, example_key
from tunewheel_eval.metrics import row_scorers
from tunewheel_eval.repeats import all_keys, repeat_key, repeat_spreads, repeats_of

TASK = TaskSpec(system_prompt="s", max_output_tokens=12)


def sampled(**changes: Any) -> EvaluationSpec:
    return EvaluationSpec.model_validate({"decoding": {"temperature": 1.0}, **changes})


def test_a_few_rows_are_answered_again_and_always_the_same_ones() -> None:
    keys = [f"{number:064x}" for number in range(9, 0, -1)]
    found = repeats_of(keys, sampled(repeats=2, repeat_rows=3))
    assert sorted(found.values()) == [(key, number) for key in sorted(keys)[:3] for number in (1, 2)]
    assert all(again in all_keys(key) for again, (key, _) in found.items())
    assert repeats_of(reversed(keys), sampled(repeats=2, repeat_rows=3)) == found


@pytest.mark.parametrize("spec", [EvaluationSpec(), sampled(repeats=0)], ids=["greedy", "nobody_looks"])
def test_nothing_is_answered_again(spec: EvaluationSpec) -> None:
    assert repeats_of(["0" * 64], spec) == {}


def test_the_spread_is_that_of_the_difference_of_two_measurements(examples: tuple[ChatExample, ...]) -> None:
    """Of two of four rows half of the answers is right: each adds a variance of 1/3 (one of three right) or
    0, and the figure is over all four."""
    rows = {example_key(one, max_output_tokens=12): one for one in examples[:4]}
    measured: dict[str, Any] = {}
    for number, (key, one) in enumerate(rows.items()):
        right = one.messages[-1].content
        measured[key] = HoldoutRow(key=key, output=right, complete=True, nll=1.0, tokens=3)
        for repeat in (1, 2):
            again = repeat_key(key, repeat)
            said = right if number < 2 else "no"
            measured[again] = RepeatRow(key=again, output=said, complete=True)
    rules = [{"rule": "allowed_values", "values": sorted({one.messages[-1].content for one in examples})}]
    task = TaskSpec.model_validate({"system_prompt": "s", "max_output_tokens": 12, "output_rules": rules})
    found = repeat_spreads(
        Measurement(header=Header(model_key="m", dtype="float32"), rows=measured),
        rows,
        row_scorers(task),
        sampled(repeats=2),
    )
    variance = (1 / 3 + 1 / 3) / 4
    assert found["label_accuracy"] == pytest.approx((2 * variance / 4) ** 0.5)
    assert "perplexity" not in found


def test_rows_that_were_not_answered_again_say_nothing(examples: tuple[ChatExample, ...]) -> None:
    key = example_key(examples[0], max_output_tokens=12)
    only = {key: HoldoutRow(key=key, output="a", complete=True, nll=1.0, tokens=3)}
    measured = Measurement(header=Header(model_key="m", dtype="float32"), rows=only)
    assert repeat_spreads(measured, {key: examples[0]}, row_scorers(TASK), sampled()) == {}
