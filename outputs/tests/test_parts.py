"""Criteria about single labels: a planted fall is found, and an equal model is seldom failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import CriterionCheck, Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.parts import of_labels, together
from tunewheel_verdicts.significance import Scores
from tunewheel_verdicts.verdict import judge

LABELS = tuple(f"label-{number}" for number in range(8))


def drawn(
    rng: np.random.Generator, *, fell: int = 0, rows: int = 200, per_customer: int = 1, alike: float = 0.0
) -> Measured:
    """Draw a holdout of eight labels. Both models are right in .9 of the rows, the candidate in .45 of those
    of the first ``fell`` labels. ``alike``: how often a customer's rows of a label repeat one outcome."""
    labels, clusters = np.arange(rows) % 8, np.arange(rows) // 8 // per_customer * 8 + np.arange(rows) % 8
    rates = np.where(labels < fell, 0.45, 0.9)

    def hits(rates: Any) -> Scores:
        own, common = rng.random(rows), rng.random(rows)[clusters]
        return Scores((np.where(rng.random(rows) < alike, common, own) < rates).astype(float))

    return Measured(
        name="label_accuracy", test="proportion", lower_is_better=False, lowest=0.0, highest=1.0,
        on="holdout", clusters=clusters,
        scores={Role.CANDIDATE: hits(rates), Role.CHAMPION: hits(np.full(rows, 0.9))},
        labels=tuple(LABELS[one] for one in labels),
    )  # fmt: skip


def check(metric: Measured, **more: Any) -> CriterionCheck:
    plain: dict[str, Any] = {"metric": metric.name, "over_champion": 0.0} | more
    criterion = Criterion.model_validate(plain if "label" in more else plain | {"labels": "each"})
    task = TaskSpec(system_prompt="s")
    return judge([criterion], {metric.name: metric}, task, resolution=0.05, seed=0)[0]


def test_one_label_of_eight_that_fell_by_half_is_found() -> None:
    rng = np.random.default_rng(8)
    found = [check(drawn(rng, fell=1)) for _ in range(60)]
    missed = [one for one in found if one.outcome == "missed" and "label-0 (" in one.reason]
    assert len(missed) >= 0.8 * 60
    assert not any(one.passed for one in missed)
    assert {one.outcome for one in found} <= {"met", "missed"}  # what is not shown leaves nothing open


@pytest.mark.parametrize(("per_customer", "alike"), [(1, 0.0), (3, 0.4)])
def test_an_equal_model_is_seldom_failed_by_any_label(per_customer: int, alike: float) -> None:
    rng = np.random.default_rng(9)
    failed = sum(not check(drawn(rng, per_customer=per_customer, alike=alike)).passed for _ in range(100))
    assert failed <= 9  # .05 of 100, and two standard deviations


def test_all_intervals_hold_together() -> None:
    """With a true difference of 0, an interval that lies above or below 0 is wrong."""
    rng, wrong = np.random.default_rng(10), 0
    for _ in range(100):
        ends = together(of_labels(drawn(rng)), alpha=0.05, seed=0).values()
        wrong += any(one.low > 1e-9 or one.high < -1e-9 for one in ends)
    assert wrong <= 17  # both ends together .1


def test_a_margin_allows_a_loss_and_one_label_can_be_named() -> None:
    metric = drawn(np.random.default_rng(1), fell=1, rows=400)
    assert not check(metric, over_champion=-0.1).passed
    assert check(metric, over_champion=-0.6).passed
    assert not check(metric, label="label-0").passed
    assert check(metric, label="label-1").passed


def test_without_champion_labels_or_rows_nothing_is_shown() -> None:
    metric = drawn(np.random.default_rng(1), fell=1)
    assert check(metric, label="unheard-of").passed
    few = drawn(np.random.default_rng(1), fell=8, rows=16)
    assert check(few).reason.endswith("no label has enough rows to show a loss")


def test_an_ordinary_criterion_beside_it_is_judged_as_without_it() -> None:
    metric, task = drawn(np.random.default_rng(2), rows=80), TaskSpec(system_prompt="s")
    plain = Criterion(metric=metric.name, over_champion=-0.1)
    each = Criterion(metric=metric.name, over_champion=0.0, labels="each")
    together_, alone = (
        judge(criteria, {metric.name: metric}, task, resolution=0.05, seed=0)
        for criteria in ((plain, each), (plain,))
    )
    assert together_[0] == alone[0]
