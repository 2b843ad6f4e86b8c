from __future__ import annotations

import json
import math

import pytest
from tunewheel_train.trainers.course import Divergence


def complaint(losses: list[float]) -> str | None:
    divergence = Divergence()
    return next((found for loss in losses if (found := divergence.saw(loss))), None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_number_is_told_at_once(bad: float):
    assert complaint([2.0, bad]) == "made the loss diverge to a value that is not finite"


def test_a_loss_that_left_for_good_is_told():
    found = complaint([2.0] * 8 + [9.0] * 12)
    assert found is not None
    assert found.startswith("made the loss diverge from 2.00 to ")


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 30,
        [2.0] * 8 + [9.0] * 3 + [2.0] * 20,  # a few hard batches
        [0.05] * 8 + [0.3] * 30,  # an adapter that is continued begins near its end
        [8.0] * 8 + [2.0] * 20,
    ],
)
def test_noise_is_none(losses: list[float]):
    assert complaint(losses) is None


@pytest.mark.parametrize("interrupted_after", [3, 10, 14])
def test_an_interruption_changes_no_verdict(interrupted_after: int):
    losses = [2.0] * 8 + [9.0] * 12
    divergence = Divergence()
    assert not any(divergence.saw(loss) for loss in losses[:interrupted_after])
    state = json.loads(json.dumps(divergence.state()))
    divergence = Divergence()
    divergence.restore(state)
    rest = losses[interrupted_after:]
    found = next(found for loss in rest if (found := divergence.saw(loss)))
    assert found == complaint(losses)
