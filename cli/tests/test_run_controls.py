from __future__ import annotations

import pytest
from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.run_controls import make_control
from tunewheel_contracts.events.training import TrainAction


def test_the_same_request_is_the_same_command() -> None:
    first, again, other = (make_control("p", "run-1", TrainAction.PAUSE, r) for r in ("a", "a", "b"))
    assert first.id == again.id != other.id
    assert first.data.action is TrainAction.PAUSE


def test_a_run_id_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InvalidOption, match="run_id"):
        make_control("p", "Run 1", TrainAction.CANCEL, "r")
