from __future__ import annotations

import json
from pathlib import Path

from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.planning.calibration import Calibration
from tunewheel_train.runs.estimates import learn

EXAMPLES = Path(__file__).resolve().parents[4] / "contracts" / "examples" / "train.completed" / "valid"


def event(name: str) -> TrainCompleted:
    return TrainCompleted.model_validate(json.loads((EXAMPLES / name).read_text()))


def test_a_run_that_was_planned_and_measured_corrects_the_next():
    calibration, completed = Calibration(), event("planned.json")
    learn(calibration, completed)
    (correction,) = calibration.corrections(TrainMethod.LORA).values()
    assert correction.runs == 1
    assert correction.speed == completed.usage.tokens_per_second / completed.plan.tokens_per_second.expected


def test_a_run_from_before_there_were_plans_says_nothing():
    calibration = Calibration()
    learn(calibration, event("lora.json"))
    assert calibration.corrections(TrainMethod.LORA) == {}


def test_a_run_that_did_more_than_was_planned_says_nothing():
    calibration, completed = Calibration(), event("planned.json")
    usage = completed.usage.model_copy(update={"comparable": False})
    learn(calibration, completed.model_copy(update={"usage": usage}))
    assert calibration.corrections(TrainMethod.LORA) == {}
