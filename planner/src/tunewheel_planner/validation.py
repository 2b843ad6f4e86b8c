"""How much of the training examples is validated on, and how often, so that it costs little of the training.

To validate a token takes one forward pass: half of what an adapter is trained on it for, a third of what all
weights are (Kaplan et al., arXiv:2001.08361 §2.1).
"""

from __future__ import annotations

import math

from tunewheel_contracts.formats.plan import ValidationPlan
from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec

SHARE = 0.05
"""Of the computation of training, that validating may take at most."""
TIMES = 10
"""Validations that are aimed at: patience wants some, and the best checkpoint is chosen among them."""
FEWEST = 20
"""Fewer validation examples than this say too little; then all are trained on."""
MOST = 512
"""More say little more; a larger dataset is validated on more often instead."""


def most_validated(examples: int, recipe: TrainSpec) -> int:
    """How many of ``examples`` are held back at most; 0 where nothing is to be validated on."""
    stages = recipe.preference is None or not recipe.preference.alone
    wanted = recipe.validation_fraction * examples
    if not (stages and recipe.patience) or wanted < FEWEST:
        return 0
    affordable = SHARE * recipe.epochs * (examples - wanted) / (TIMES * _cost(recipe.method))
    return round(min(wanted, MOST, max(FEWEST, affordable)))


def plan_validation(
    *, examples: int, tokens: int, trained_tokens: float, steps: int, recipe: TrainSpec
) -> ValidationPlan | None:
    """When to validate on ``examples`` of ``tokens`` tokens in all, in ``steps`` steps that train on
    ``trained_tokens``; None where even once would take more than ``SHARE`` of them."""
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
    """Optimizer steps of ``epochs``; a fractional last epoch keeps its first."""
    per_epoch = math.ceil(examples / batch_size)
    shares = (min(1.0, epochs - epoch) for epoch in range(math.ceil(epochs)))
    return sum(min(per_epoch, max(1, round(per_epoch * share))) for share in shares)


def _cost(method: TrainMethod) -> float:
    """Of validating on a token, beside training on it."""
    return 1 / 3 if method is TrainMethod.FULL else 1 / 2
