"""Plans which examples each optimizer step has. The plan depends only on the seed and the lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Container, Sequence
from typing import TypeVar

from tunewheel_train.data.datasets import Encoded

REHEARSAL = 0.25
"""The share of learnt examples that are trained on again, if the recipe does not say."""
Item = TypeVar("Item")

# Examples are sorted by length within a window of so many batches. This keeps the order random enough.
_WINDOW_BATCHES = 8


def rehearse(
    examples: Sequence[Encoded], learnt: Container[str], *, share: float, seed: int
) -> list[Encoded]:
    """Return the examples whose ids are not in ``learnt``, and about ``share`` of the others, in order.

    A model that trains on new examples alone forgets the others (experience replay, arXiv:1811.11682).
    """
    drawn = ((example, random.Random(f"{seed}/{example.example_id}").random()) for example in examples)
    return [example for example, place in drawn if example.example_id not in learnt or place < share]


def plan_steps(lengths: Sequence[int], *, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Return the indices of the examples of each optimizer step, in order.

    Every epoch is shuffled anew. Within windows of a few batches the examples are sorted by length, so that
    the examples of a step have similar lengths. Then the batches of the epoch are shuffled. Of a fractional
    last epoch only the first steps are kept.
    """
    steps: list[list[int]] = []
    per_epoch = math.ceil(len(lengths) / batch_size)
    for epoch in range(math.ceil(epochs)):
        order = random.Random(f"{seed}/{epoch}")
        batches = _epoch_batches(lengths, batch_size, order)
        share = min(1.0, epochs - epoch)
        steps.extend(batches[: max(1, round(per_epoch * share))])
    return steps


def _epoch_batches(lengths: Sequence[int], batch_size: int, order: random.Random) -> list[list[int]]:
    indices = list(range(len(lengths)))
    order.shuffle(indices)
    window = batch_size * _WINDOW_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(indices), window):
        similar = sorted(indices[start : start + window], key=lambda index: lengths[index])
        batches.extend(similar[at : at + batch_size] for at in range(0, len(similar), batch_size))
    order.shuffle(batches)
    return batches


def plan_prompts(count: int, *, per_step: int, steps: int, seed: int) -> list[list[int]]:
    """Return the indices of the prompts of each of ``steps`` steps: all ``count`` prompts in a new order each
    time, as often as needed. Every step has ``per_step`` prompts."""
    order: list[int] = []
    while len(order) < steps * per_step:
        epoch = list(range(count))
        random.Random(f"{seed}/prompts/{len(order)}").shuffle(epoch)
        order += epoch
    return [order[step * per_step : (step + 1) * per_step] for step in range(steps)]


def micro_batches(step: Sequence[Item], micro_batch_size: int) -> list[list[Item]]:
    """Cut one step's examples into pieces of at most ``micro_batch_size``."""
    return [list(step[at : at + micro_batch_size]) for at in range(0, len(step), micro_batch_size)]
