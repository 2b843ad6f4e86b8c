"""Evidence: seldom wrong, however often one looks; soon there after a change, and soon gone after its end."""

from __future__ import annotations

import numpy as np
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.detectors import DETECTORS, evidence

DRIFT = DriftSpec(window=20)


def gathered(e_values: np.ndarray, *, weight: float = 1.0, size: int = 20) -> list[float]:
    """Return the p-value at the end of each window of ``size`` e-values."""
    state = evidence.opened(DRIFT, weight)
    found: list[float] = []
    for row in e_values.reshape(-1, size):
        for e_value in row:
            evidence.bet(state, float(e_value))
        found.append(evidence.p_value(state))
    return found


def test_without_a_change_an_alarm_is_as_rare_as_promised():
    """The worst case: e-values whose mean is 1. With an average of 100 windows to a false alarm, 200 runs
    of 20 windows may hold 40."""
    rng = np.random.default_rng(1)
    e_values = (rng.random((200, 20 * 20)) < 0.2) / 0.2
    runs = [min(gathered(row, weight=25.0)) for row in e_values]
    assert DRIFT.p_value == 0.01
    assert 0 < sum(p_value < 0.01 for p_value in runs) <= 40


def test_a_change_is_seen_as_soon_after_long_health_as_at_once():
    rng = np.random.default_rng(2)
    changed = (rng.random(600) < 0.4) / 0.2
    healthy = (rng.random(20_000) < 0.15) / 0.2
    at_once = next(n for n, p in enumerate(gathered(changed)) if p < 4e-4)
    later = next(n for n, p in enumerate(gathered(np.concatenate([healthy, changed]))) if p < 4e-4) - 1_000
    assert at_once <= 20
    assert 0 <= later <= at_once + 2


def test_evidence_is_gone_soon_after_its_cause():
    rng = np.random.default_rng(3)
    flood, healthy = np.full(2_000, 5.0), (rng.random(2_000) < 0.1) / 0.2
    found = gathered(np.concatenate([flood, healthy]), size=100)
    assert max(found[1:20]) < 4e-4
    assert min(found[30:]) > 4e-4


def test_the_detectors_share_what_all_may_risk():
    weights = [getattr(detector, "weight", None) for detector in DETECTORS]
    assert all(weight is not None and weight > 0 for weight in weights)
    assert sum(weight for weight in weights if weight) <= 1 + 1e-9
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)
