"""Evidence: seldom wrong, however often one looks; soon there after a change, and soon gone after its end."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor import detectors
from tunewheel_monitor.detectors import DETECTORS, WEIGHTS, Opening, evidence, find_detectors

DRIFT = DriftSpec(window=20)
SILENCE = """
from tunewheel_monitor.detectors.rates import Rise


class Silence(Rise):
    name = "silence"
    weight = 0.25
    floor = 0.1
    action = "investigate"
    unit = "share of empty answers"

    def measure(self, data):
        return float(len(data.output.strip()))

    def bad(self, state, item):
        characters = item.measures.get(self.name)
        return None if characters is None else not characters
"""


def gathered(e_values: np.ndarray, *, weight: float = 1.0, size: int = 20) -> list[float]:
    """Return the p-value at the end of each window of ``size`` e-values."""
    state = evidence.opened(Opening(drift=DRIFT), weight)
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


def threshold(detector: Any, weights: float) -> float:
    opened = detector.open(Opening(drift=DRIFT, coverage=None, weights=weights))
    return opened["evidence"]["threshold"]


def test_the_detectors_share_what_all_may_risk():
    assert all(detector.weight > 0 for detector in DETECTORS)
    assert math.fsum(detector.weight / WEIGHTS for detector in DETECTORS) == pytest.approx(1)
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS) >= 15


def test_a_new_detector_is_one_file_and_takes_its_share_from_all_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "silence.py").write_text(SILENCE)
    monkeypatch.setattr(detectors, "__path__", [*detectors.__path__, str(tmp_path)])
    found = find_detectors()
    monkeypatch.delitem(sys.modules, "tunewheel_monitor.detectors.silence")
    assert {one.name for one in found} == {one.name for one in DETECTORS} | {"silence"}
    weights = math.fsum(one.weight for one in found)
    rates = [one for one in found if one.name in {"format", "latency", "silence"}]
    assert [one.name for one in rates] == ["silence", "format", "latency"]
    for one in rates:
        assert threshold(one, weights) == pytest.approx(threshold(one, WEIGHTS) * WEIGHTS / weights)


def test_an_opened_state_follows_the_share_that_a_new_detector_leaves():
    latency = next(one for one in DETECTORS if one.name == "latency")
    before, after = (latency.open(Opening(drift=DRIFT, weights=weights)) for weights in (1.0, 1.25))
    wealth = before["evidence"]["wealth"] = [2.0] * len(evidence.BETS)
    evidence.follow(before, after)
    assert before["evidence"]["threshold"] == after["evidence"]["threshold"]
    assert before["evidence"]["wealth"] == wealth
