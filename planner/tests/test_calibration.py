from __future__ import annotations

import math
from itertools import permutations

import pytest
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import Interval, TrainPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.calibration import REMEMBERED, Calibration, Correction, Outcome, key
from tunewheel_planner.devices import processor
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.shapes import KNOWN
from tunewheel_testing.story import example

CPU = processor(memory_bytes=24 << 30, teraflops=0.4, bfloat16=True)


def of(calibration: Calibration) -> Correction:
    (correction,) = calibration.corrections(TrainMethod.LORA).values() or (Correction(),)
    return correction


def planned(calibration: Calibration | None = None) -> TrainPlan:
    stats = DatasetStats(examples=100, tokens=20_000, longest=400, learnt=5_000)
    shape = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
    return make_plan(shape, stats, TrainSpec(), CPU, correction=of(calibration or Calibration()))


def ran(factor: float, plan: TrainPlan | None = None) -> Outcome:
    plan = plan or planned()
    return Outcome(plan, plan.tokens_per_second.expected / plan.speed_factor * factor)


def test_a_corrected_plan_is_measured_against_the_formulas_not_against_its_correction() -> None:
    once = Calibration([ran(2.0)])
    again = planned(once)
    twice = Calibration([ran(2.0), ran(2.0, again)])
    assert of(twice).speed == pytest.approx(2.0)


def test_the_order_of_runs_does_not_matter() -> None:
    outcomes = [ran(0.5), ran(1.0), ran(3.0)]
    assert len({of(Calibration(order)) for order in permutations(outcomes)}) == 1


def test_the_middle_is_the_geometric_mean_and_the_spread_widens_the_interval() -> None:
    correction = of(Calibration([ran(0.5), ran(2.0)]))
    assert correction.speed == pytest.approx(1.0)
    assert correction.spread == pytest.approx(math.log(2))
    around = correction.around(Interval(low=1, expected=10, high=100))
    assert around.low < 6 < 10 < 18 < around.high


def test_what_was_long_ago_is_forgotten() -> None:
    outcomes = [ran(5.0), *[ran(1.0)] * REMEMBERED]
    assert of(Calibration(outcomes)).speed == pytest.approx(1.0)


def test_a_run_that_took_no_time_says_nothing() -> None:
    assert of(Calibration([ran(0.0)])).runs == 0


def test_small_models_say_nothing_about_large_ones() -> None:
    sizes = [134_515_008, 362_000_000, 1_235_814_400, 8_030_261_248]
    assert len({key("cpu", size) for size in sizes}) == 4
    assert key("cpu", 1_235_814_400) == key("cpu", 1_711_376_384)


def completed(name: str) -> TrainCompleted:
    return TrainCompleted.model_validate(example("train.completed", name))


def test_a_run_that_was_planned_and_measured_corrects_the_next() -> None:
    calibration, run = Calibration(), completed("planned")
    assert run.usage is not None
    assert run.plan is not None
    calibration.learn(run.plan, run.usage)
    (correction,) = calibration.corrections(TrainMethod.LORA).values()
    assert correction.runs == 1
    assert correction.speed == run.usage.tokens_per_second / run.plan.tokens_per_second.expected


def test_a_run_from_before_there_were_plans_or_that_did_more_says_nothing() -> None:
    calibration, run = Calibration(), completed("planned")
    assert run.usage is not None
    calibration.learn(completed("lora").plan, completed("lora").usage)
    calibration.learn(run.plan, run.usage.model_copy(update={"comparable": False}))
    assert calibration.corrections(TrainMethod.LORA) == {}
