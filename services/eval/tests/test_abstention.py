from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.confidence import AbstainSpec
from tunewheel_eval.abstention import ALPHA, abstention

DRAWS = 100


def drawn(rng: Any, rows: int, *, sureness: float) -> tuple[Any, Any]:
    """Return confidences that are right as often as they say."""
    sure = rng.beta(sureness, 1, rows)
    return sure, (rng.random(rows) < sure).astype(float)


def risk_at(least: float, population: tuple[Any, Any], unknown: float) -> float:
    """Return the true share of wrong answers among those sent: unknown subjects are answered as often as
    known ones are answered wrongly."""
    sure, right = population
    sent, wrong = sure >= least, right == 0
    known = (1 - unknown) * (sent & wrong).mean()
    strange = unknown * (sent & wrong).sum() / wrong.sum()
    return (known + strange) / ((1 - unknown) * sent.mean() + strange)


@pytest.mark.parametrize("unknown", [0.0, 0.1])
@pytest.mark.parametrize("rows", [300, 1_000])
@pytest.mark.parametrize("sureness", [4.0, 12.0])
def test_a_risk_is_seldom_shown_as_kept_that_is_not(sureness: float, rows: int, unknown: float):
    rng = np.random.default_rng(51)
    population = drawn(rng, 400_000, sureness=sureness)
    spec = AbstainSpec(risk=0.05, unknown=unknown)
    false = found = 0
    for _ in range(DRAWS):
        one = abstention(*drawn(rng, rows, sureness=sureness), np.arange(rows), spec)
        found += one.shown
        false += one.shown and risk_at(one.chosen.least, population, unknown) > spec.risk
    print(sureness, rows, unknown, false / DRAWS, found / DRAWS)
    assert false / DRAWS <= ALPHA


@pytest.mark.parametrize(("rows", "often"), [(300, 0.5), (1_000, 0.95)])
def test_a_risk_that_is_kept_with_room_is_mostly_shown(rows: int, often: float):
    rng = np.random.default_rng(52)
    spec = AbstainSpec(risk=0.05, unknown=0.0)
    found = [abstention(*drawn(rng, rows, sureness=20.0), np.arange(rows), spec) for _ in range(DRAWS)]
    print(np.mean([one.shown for one in found]), np.mean([one.chosen.coverage for one in found]))
    assert np.mean([one.shown and one.chosen.coverage >= 0.6 for one in found]) >= often
