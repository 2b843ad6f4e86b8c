"""Validation stays below its share of training, and early stopping still has enough to go by."""

from __future__ import annotations

import pytest
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import ValidationPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.plan import DatasetStats, hold_back
from tunewheel_planner.validation import (
    FEWEST,
    MOST,
    SHARE,
    count_steps,
    most_validated,
    plan_validation,
)

TOKENS = 100


def planned(examples: int, **recipe: object) -> tuple[DatasetStats, ValidationPlan | None]:
    stats = DatasetStats(examples=examples, tokens=examples * TOKENS, longest=300, learnt=examples * 30)
    held = hold_back(stats, TrainSpec.model_validate(recipe))
    return held, held.validation


@pytest.mark.parametrize("method", TrainMethod)
@pytest.mark.parametrize("examples", [1_000, 5_000, 10_000, 100_000])
def test_validating_takes_at_most_a_twentieth_of_training_and_leaves_patience_enough_to_see(
    examples: int, method: TrainMethod
) -> None:
    recipe = TrainSpec(method=method)
    stats, validation = planned(examples, method=method)
    assert validation is not None
    assert stats.examples + validation.examples == examples
    assert FEWEST <= validation.examples <= MOST
    # in forward passes over an example: a step backward costs a frozen base one more, trained weights two
    passes = 3 if method is TrainMethod.FULL else 2
    steps = count_steps(stats.examples, batch_size=recipe.batch_size, epochs=recipe.epochs)
    validated = sum(
        validation.examples
        for step in range(1, steps + 1)
        if step % validation.every_steps == 0 or step == steps
    )
    assert validated == validation.times * validation.examples
    share = validated / (passes * recipe.epochs * stats.examples)
    assert share <= SHARE == 0.05
    assert validation.share == pytest.approx(share, rel=0.01)
    assert validation.times >= recipe.patience + 2
    assert validation.every_steps % recipe.checkpoint_steps == 0


@pytest.mark.parametrize(
    ("examples", "recipe"),
    [
        (399, {}),  # a twentieth of which is too few to say anything
        (1_000, {"patience": 0}),
        (1_000, {"validation_fraction": 0}),
        (1_000, {"preference": {"alone": True}}),
        (500, {"epochs": 0.3}),  # even one validation would take more than its share
    ],
    ids=str,
)
def test_nothing_is_held_back_that_would_say_too_little_or_cost_too_much(examples: int, recipe: dict) -> None:
    stats, validation = planned(examples, **recipe)
    assert (stats.examples, validation) == (examples, None)


def test_a_smaller_fraction_is_not_exceeded() -> None:
    assert most_validated(10_000, TrainSpec(validation_fraction=0.01)) == 100
    assert most_validated(10_000, TrainSpec()) > 100


def test_long_examples_to_validate_on_are_validated_on_less_often() -> None:
    recipe = TrainSpec(checkpoint_steps=1)
    usual, long = (
        plan_validation(examples=20, tokens=tokens, trained_tokens=200_000, steps=250, recipe=recipe)
        for tokens in (2_000, 8_000)
    )
    assert usual is not None
    assert long is not None
    assert (usual.times, long.times) == (10, 2)
    assert long.share <= SHARE
