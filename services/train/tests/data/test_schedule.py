from __future__ import annotations

from itertools import chain

import pytest
from tunewheel_planner.validation import count_steps
from tunewheel_train.data.schedule import micro_batches, plan_steps

LENGTHS = [10 + (n * 37) % 90 for n in range(50)]


def test_an_epoch_sees_every_example_once():
    steps = plan_steps(LENGTHS, batch_size=8, epochs=2, seed=1)
    assert len(steps) == 14
    for epoch in (steps[:7], steps[7:]):
        assert sorted(chain.from_iterable(epoch)) == list(range(50))


def test_the_order_follows_from_the_seed_and_differs_by_epoch():
    first = plan_steps(LENGTHS, batch_size=8, epochs=2, seed=1)
    assert first == plan_steps(LENGTHS, batch_size=8, epochs=2, seed=1)
    assert first != plan_steps(LENGTHS, batch_size=8, epochs=2, seed=2)
    assert first[:7] != first[7:]


def test_examples_of_a_step_are_of_similar_length():
    steps = plan_steps(LENGTHS, batch_size=8, epochs=1, seed=1)
    padded = sum(max(LENGTHS[i] for i in step) * len(step) for step in steps)
    assert padded < 1.2 * sum(LENGTHS)


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 4), (1.5, 11), (0.01, 1)])
def test_a_fractional_epoch_keeps_its_first_steps(epochs: float, steps: int):
    assert len(plan_steps(LENGTHS, batch_size=8, epochs=epochs, seed=1)) == steps
    assert count_steps(len(LENGTHS), batch_size=8, epochs=epochs) == steps  # as a plan counts them


def test_micro_batches_keep_the_order():
    assert micro_batches([5, 3, 8, 1, 9], 2) == [[5, 3], [8, 1], [9]]
