"""Decides how many examples are held back for validation, and how often to validate, at a small share of the
training's cost.

Validating a token takes one forward pass. That is half the cost of training an adapter on it, and a third of
the cost of training all weights (Kaplan et al., arXiv:2001.08361 §2.1).
"""

from __future__ import annotations

import math

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import ValidationPlan
from tunewheel_contracts.formats.recipe import TrainSpec

SHARE = 0.05
"""The largest share of the training's computation that validation may take."""
TIMES = 10
"""The intended number of validations. Patience needs several, and the best checkpoint is chosen by them."""
FEWEST = 20
"""The fewest useful validation examples. If there would be fewer, all examples are trained on."""
MOST = 512
"""The most validation examples; more would add little. A larger dataset is validated more often instead."""


def most_validated(examples: int, recipe: TrainSpec) -> int:
    """Return how many of ``examples`` are held back at most; 0: no validation."""
    stages = recipe.preference is None or not recipe.preference.alone
    wanted = recipe.validation_fraction * examples
    if not (stages and recipe.patience) or wanted < FEWEST:
        return 0
    affordable = SHARE * recipe.epochs * (examples - wanted) / (TIMES * _cost(recipe.method))
    return round(min(wanted, MOST, max(FEWEST, affordable)))


def plan_validation(
    *, examples: int, tokens: int, trained_tokens: float, steps: int, recipe: TrainSpec
) -> ValidationPlan | None:
    """Plan when to validate.

    The validation set has ``examples`` with ``tokens`` in all. Training takes ``steps`` and
    ``trained_tokens``. None: even a single validation would cost more than ``SHARE`` of the training.
    """
    if examples < FEWEST or steps < 1:
        return None
    cost = tokens * _cost(recipe.method) / trained_tokens
    affordable = math.floor(SHARE / cost)
    if affordable < 1:
        return None
    between = recipe.checkpoint_steps  # the best weights are taken from a checkpoint
    every = between * math.ceil(steps / affordable / between)
    times = math.ceil(steps / every)
    return ValidationPlan(examples=examples, every_steps=every, times=times, share=times * cost)


def count_steps(examples: int, *, batch_size: int, epochs: float) -> int:
    """Return the optimizer steps of ``epochs``. Of a fractional last epoch, only the first part is
    trained."""
    per_epoch = math.ceil(examples / batch_size)
    shares = (min(1.0, epochs - epoch) for epoch in range(math.ceil(epochs)))
    return sum(min(per_epoch, max(1, round(per_epoch * share))) for share in shares)


def _cost(method: TrainMethod) -> float:
    """Return the cost of validating a token as a share of the cost of training on it."""
    return 1 / 2 if method.traits.adapter else 1 / 3
