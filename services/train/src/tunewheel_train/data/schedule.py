"""Which examples each optimizer step sees: a function of the seed and the lengths, never of the clock."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

# Batches within a window are of similar length; a window this wide keeps their order random enough.
_WINDOW_BATCHES = 8


def plan_steps(lengths: Sequence[int], *, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Indices of the examples of each optimizer step, in order.

    Every epoch is its own shuffle. Within windows of a few batches examples are sorted by length, so that
    those of one step are similar, and the batches of an epoch are shuffled again. A fractional last epoch
    keeps its first steps.
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


def micro_batches(step: Sequence[int], micro_batch_size: int) -> list[list[int]]:
    """Cut one step's examples into pieces of at most ``micro_batch_size``."""
    return [list(step[at : at + micro_batch_size]) for at in range(0, len(step), micro_batch_size)]
