from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.confidence import AbstainSpec, Calibration
from tunewheel_eval.abstention import ALPHA, abstention, abstention_of
from tunewheel_eval.bundles import with_certainty
from tunewheel_eval.metrics import LABELS, Outcomes
from tunewheel_testing.adapters import bundle_of
from tunewheel_verdicts.significance import Scores

DRAWS = 100
CURVE = Calibration(rows=400, intercept=0.0, slope=1.0, covariance=(0.1, 0.0, 0.1), spread=0.0)
SPEC = AbstainSpec(risk=0.05, unknown=0.0)


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
    false = 0
    for _ in range(DRAWS):
        one = abstention(*drawn(rng, rows, sureness=sureness), np.arange(rows), spec)
        false += one.shown and risk_at(one.chosen.least, population, unknown) > spec.risk
    assert false / DRAWS <= ALPHA


@pytest.mark.parametrize(("rows", "often"), [(300, 0.5), (1_000, 0.95)])
def test_a_risk_that_is_kept_with_room_is_mostly_shown(rows: int, often: float):
    rng = np.random.default_rng(52)
    spec = AbstainSpec(risk=0.05, unknown=0.0)
    found = [abstention(*drawn(rng, rows, sureness=20.0), np.arange(rows), spec) for _ in range(DRAWS)]
    assert np.mean([one.shown and one.chosen.coverage >= 0.6 for one in found]) >= often


def test_rows_of_one_customer_are_one_observation():
    sure, right = drawn(np.random.default_rng(53), 1_000, sureness=20.0)
    alone, together = (
        abstention(sure, right, clusters, SPEC) for clusters in (np.arange(1_000), np.arange(1_000) // 50)
    )
    assert alone.shown
    assert together.curve[-1].bound > alone.curve[-1].bound
    assert together.chosen.coverage <= alone.chosen.coverage


@pytest.mark.parametrize("unknown", [0.0, 0.1])
def test_a_model_that_is_sure_of_wrong_labels_is_told(unknown: float):
    sure = np.linspace(0.5, 1.0, 400)
    found = abstention(
        sure, np.tile([1.0, 0.0], 200), np.arange(400), AbstainSpec(risk=0.05, unknown=unknown)
    )
    assert not found.shown
    assert found.chosen.bound > 0.05


def test_no_row_with_a_label_leaves_nothing_to_send():
    found = abstention([0.0] * 50, [0.0] * 50, np.arange(50), SPEC)
    assert (found.shown, found.chosen.least, found.chosen.coverage, found.curve) == (False, 1.0, 0.0, ())


def test_answers_that_are_equally_sure_go_together():
    sure = [0.9] * 300 + [0.4] * 300
    found = abstention(sure, [1.0] * 300 + [0.0] * 300, np.arange(600), SPEC)
    assert (found.shown, found.chosen.least, found.chosen.coverage) == (True, 0.9, 0.5)
    assert [one.coverage for one in found.curve] == [0.5, 1.0]


@pytest.mark.parametrize("abstains", [True, False])
def test_what_was_judged_is_in_the_bundle_that_serves(abstains: bool):
    rng = np.random.default_rng(54)
    sure, right = drawn(rng, 600, sureness=20.0)
    right[::50] = np.nan  # the expert gave no label
    found = Outcomes({LABELS: Scores(right)}, 600, (), calibration=CURVE, sure=(*sure.tolist(),))
    one = abstention_of(found, np.arange(600), SPEC if abstains else None)
    bundle = with_certainty(bundle_of(), CURVE, one, label_field="category")
    assert bundle.certainty is not None
    assert (bundle.certainty.intercept, bundle.certainty.slope) == (0.0, 1.0)
    assert bundle.certainty.label_field == "category"
    if one is not None:
        assert one.rows == 588
        assert bundle.certainty.least == one.chosen.least
    assert (bundle.certainty.least is not None) == abstains
    assert with_certainty(bundle_of(), None, one, label_field="category").certainty is None


def test_a_contestant_whose_confidence_is_not_known_has_no_threshold():
    found = Outcomes({LABELS: Scores(np.ones(50))}, 50, (), calibration=CURVE)
    assert abstention_of(found, np.arange(50), SPEC) is None
