"""The words for a project's place."""

from __future__ import annotations

from tunewheel_wheel.summary import ENDS, PLACES
from tunewheel_wheel.turn import TurnEnd, TurnStage
from tunewheel_wheel.wheel import ASIDE


def test_every_stage_and_every_end_has_a_place_unless_another_turn_has_the_project() -> None:
    assert {*PLACES} == {*TurnStage}
    assert {*ENDS} == {*TurnEnd} - {*ASIDE}
