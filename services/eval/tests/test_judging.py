"""Rows that a contestant could not be measured on are left out for all; too many of them end it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.judging import keep_measured
from tunewheel_eval.measurement import Header, Measurement, SkippedRow, SkipReason, example_key

LIMIT = 12


def skipping(keys: Sequence[str], reason: SkipReason = SkipReason.TOO_LONG) -> Measurement:
    rows = {key: SkippedRow(key=key, reason=reason, detail="example ex-1, which is odd") for key in keys}
    return Measurement(header=Header(model_key="m", dtype="float32"), rows=rows)


def rows(examples: Sequence[ChatExample], count: int) -> tuple[ChatExample, ...]:
    """``count`` examples with different keys."""
    one = examples[0]
    asked = [one.messages[1].model_copy(update={"content": f"{n}?"}) for n in range(count)]
    return tuple(
        one.model_copy(update={"messages": (one.messages[0], ask, one.messages[2])}) for ask in asked
    )


def keys(examples: Sequence[ChatExample]) -> list[str]:
    return [example_key(one, max_output_tokens=LIMIT) for one in examples]


def item(name: str) -> RegressionItem:
    return RegressionItem(item_id=name, kind="k", prompt=name, answer="a", match="exact")


def test_a_row_that_one_contestant_skipped_is_left_out_for_all(examples: tuple[ChatExample, ...]) -> None:
    held = rows(examples, 100)
    items = tuple(item(f"i{n}") for n in range(20))
    measured = {
        Role.CANDIDATE: skipping(keys(held)[:2]),
        Role.BASE: skipping([*keys(held)[1:3], items[0].key]),
        Role.CHAMPION: skipping(keys(held)[3:5], SkipReason.NO_ANSWER),
    }
    kept = keep_measured(measured, held, items, max_output_tokens=LIMIT)
    assert kept.examples == held[5:]
    assert kept.items == items[1:]
    assert kept.left_out == {"general_too_long": 1, "no_answer": 2, "too_long": 3}


@pytest.mark.parametrize(
    ("of", "skipped", "fits"),
    [(100, 5, True), (100, 6, False), (6, 1, True), (6, 2, False), (1, 1, False)],
)
def test_one_may_always_go_and_one_in_twenty_at_most(
    examples: tuple[ChatExample, ...], of: int, skipped: int, fits: bool
) -> None:
    held = rows(examples, of)
    measured = {Role.CANDIDATE: skipping(keys(held)[:skipped])}
    if fits:
        assert len(keep_measured(measured, held, (), max_output_tokens=LIMIT).examples) == of - skipped
        return
    with pytest.raises(UnfitCandidate, match=rf"{skipped} of {of} held-out rows .* example ex-1") as caught:
        keep_measured(measured, held, (), max_output_tokens=LIMIT)
    assert caught.value.field == "spec.dataset.max_tokens"
