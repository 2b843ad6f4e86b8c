"""No state that nobody leaves: in random lives of ninety days each open alarm leads to a turn, to its end, or
to a named person who was reminded at most a week ago. `make bench NAME=lives` tries ten thousand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tunewheel_testing.lives import Life, live

SEEDS = st.integers(0, 2**20)
QUIET = {
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
}


class Lives(RuleBasedStateMachine):
    """Hypothesis chooses what happens, and shortens the life in which a promise is broken."""

    life: Life

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        self.life = Life(seed)

    @invariant()
    def every_promise_is_kept(self) -> None:
        if hasattr(self, "life"):
            assert [*self.life.complaints()] == []

    def teardown(self) -> None:
        if hasattr(self, "life"):
            assert self.life.settle() == []


def _rule(name: str) -> Any:
    def act(self: Lives, seed: int) -> None:
        self.life.act(name, seed)

    act.__name__ = name
    return rule(seed=SEEDS)(act)


for _name in Life.ACTS:
    setattr(Lives, _name, _rule(_name))

TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=4, stateful_step_count=40, deadline=None, **QUIET)


@pytest.mark.parametrize("seed", [3, 1045, 1076])
def test_ninety_days_keep_every_promise(seed: int) -> None:
    assert live(seed) == []
