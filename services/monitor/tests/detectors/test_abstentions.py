"""Withheld answers are a figure of projects that abstain, and no answers to any other detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.production import ABSTAINED
from tunewheel_monitor.detectors import DETECTORS
from tunewheel_monitor.detectors.abstentions import Abstentions

from .conftest import alarms, answer, opening, windows


def answers(rng: Any, count: int, share: float) -> list[Any]:
    return [
        answer(measures={"abstentions": float(one)}, overrides=(ABSTAINED,) * int(one))
        for one in rng.random(count) < share
    ]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_share_that_stays_is_no_alarm_and_one_that_rises_by_thirty_points_is(share: float):
    rng = np.random.default_rng(61)
    detector = Abstentions()
    state = detector.open(opening())
    found = windows(detector, state, answers(rng, 5_000, share))
    assert alarms(found) == []
    assert found[-1].statistic == pytest.approx(share, abs=0.1)
    assert windows(detector, state, answers(rng, 600, share + 0.3))[-1].drifted


def test_a_project_that_does_not_abstain_has_no_figure():
    detector = Abstentions()
    assert windows(detector, detector.open(opening()), [answer()] * 500) == []


def test_no_detector_of_answers_counts_a_withheld_one():
    withheld = answer(
        overrides=(ABSTAINED,), measures={"abstentions": 1.0, "confidence": 0.2}, label=None,
        format_valid=False, refusal=True, repetition=0.9, invented=3,
    )  # fmt: skip
    for name in ("format", "refusals", "repetition", "invented", "confidence", "labels", "length"):
        (detector,) = (one for one in DETECTORS if one.name == name)
        assert windows(detector, detector.open(opening()), [withheld] * 300) == [], name
