"""How many recipes of a sweep each round trains, how far, and how much is left for later rounds."""

from __future__ import annotations

import pytest
from tunewheel_contracts.formats.sweep import SweepMethod
from tunewheel_train.rounds import rounds_of


@pytest.mark.parametrize(
    ("method", "recipes", "told"),
    [
        (SweepMethod.HALVING, 8, [(8, 1 / 9), (3, 1 / 3), (1, 1.0)]),
        (SweepMethod.HALVING, 10, [(10, 1 / 27), (4, 1 / 9), (2, 1 / 3), (1, 1.0)]),
        (SweepMethod.HALVING, 2, [(2, 1 / 3), (1, 1.0)]),
        (SweepMethod.HALVING, 1, [(1, 1.0)]),
        (SweepMethod.GRID, 1, [(1, 1.0)]),
        (SweepMethod.GRID, 3, [(3, 1.0)]),
    ],
)
def test_a_third_of_the_recipes_goes_on_for_three_times_as_many_steps(
    method: SweepMethod, recipes: int, told: list[tuple[int, float]]
) -> None:
    rounds = rounds_of(method, recipes)
    assert [(one.recipes, one.part) for one in rounds] == told
    assert [one.before for one in rounds] == [0.0, *(part for _, part in told[:-1])]
    trained = [one.recipes * (one.part - one.before) for one in rounds]
    assert [one.after for one in rounds] == pytest.approx([sum(trained[n:]) for n in range(1, len(told) + 1)])
