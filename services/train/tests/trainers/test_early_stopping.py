"""A part of the examples is validated on; training ends when it gets no better, with the best weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from tunewheel_contracts.formats.plan import Interval
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.devices import processor
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Tried
from tunewheel_train.preparation import affordable_hours
from tunewheel_train.progress import Planned, Progressed, Started
from tunewheel_train.trainers import checkpoints

OPTIONS = {
    "validation_fraction": 0.4, "patience": 2, "checkpoint_steps": 1, "epochs": 4.0, "learning_rate": 0.2,
}  # fmt: skip
"""A learning rate that soon leaves the best weights behind."""
SHARE = "tunewheel_planner.validation.SHARE"


@pytest.fixture(scope="module", autouse=True)
def at_any_cost() -> Iterator[None]:
    """So few examples could not be validated on as often as these tests look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARE, 1000.0)
        yield


@pytest.fixture(scope="module")
def many_path(tmp_path_factory: pytest.TempPathFactory, conversation_of) -> Path:
    path = tmp_path_factory.mktemp("many") / "train.parquet"
    pl.DataFrame([conversation_of(number) for number in range(60)]).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def stopped(cases, many_path: Path, tmp_path_factory: pytest.TempPathFactory):
    run = cases(tmp_path_factory.mktemp("stopped"))(train_path=many_path, **OPTIONS)
    return run, run.train()


def test_training_stops_after_the_patience_and_says_where(stopped):
    run, outcome = stopped
    losses = {m.step: m.validation_loss for m in run.heard(Progressed)}
    assert all(loss is not None for loss in losses.values())
    assert outcome.best_step == min(losses, key=lambda step: losses[step])
    assert outcome.stopped_early_at == outcome.best_step + 2 == outcome.steps == max(losses)
    assert outcome.metrics["validation_loss"] == min(losses.values())
    assert 20 <= outcome.metrics["validation_examples"] <= 40
    assert outcome.metrics["examples"] + outcome.metrics["validation_examples"] == 60


def test_the_best_weights_are_kept_and_published(stopped):
    from safetensors.torch import load_file

    run, outcome = stopped
    best = checkpoints.at_step(run.job.work_dir, outcome.best_step)
    assert best is not None
    saved = load_file(best / checkpoints.WEIGHTS)
    for name, value in run.weights().items():
        assert torch.equal(value, saved[name.replace(".weight", ".default.weight")])


def test_an_interrupted_run_stops_at_the_same_step_with_the_same_weights(stopped, case, many_path):
    run, outcome = stopped
    case(train_path=many_path, **OPTIONS).stop_after(outcome.best_step + 1)
    resumed = case(train_path=many_path, **OPTIONS)
    again = resumed.train()
    assert (again.stopped_early_at, again.best_step) == (outcome.stopped_early_at, outcome.best_step)
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in run.weights().items())


def test_a_run_killed_after_it_had_stopped_only_saves(stopped, case, many_path):
    import shutil

    run, outcome = stopped
    late = case(train_path=many_path, **OPTIONS)
    shutil.copytree(run.job.work_dir, late.job.work_dir)
    again = late.train()
    assert late.heard(Progressed) == []
    assert (again.steps, again.best_step) == (outcome.steps, outcome.best_step)
    assert all(torch.equal(value, late.weights()[name]) for name, value in run.weights().items())


@pytest.mark.nightly("matrices")
def test_a_run_is_validated_as_seldom_as_it_was_planned(case, many_path, monkeypatch):
    monkeypatch.setattr(SHARE, 0.5)
    usual = OPTIONS | {"patience": 50, "learning_rate": 1e-3, "checkpoint_steps": 2}
    run = case(train_path=many_path, **usual)
    run.train()
    (plan,) = (message.plan for message in run.heard(Planned))
    validated = [m.step for m in run.heard(Progressed) if m.validation_loss is not None]
    total = run.heard(Progressed)[-1].total_steps
    assert plan.validation is not None
    every = plan.validation.every_steps
    assert every > 2
    assert validated == sorted({*range(every, total + 1, every), total})
    assert len(validated) == plan.validation.times < total
    assert plan.validation.share <= 0.5


TRIED = {"validation_fraction": 0.4, "checkpoint_steps": 3, "epochs": 2.0, "learning_rate": 0.005}


def tried(part: float) -> Tried:
    return Tried(sweep_id="sweep-1", part=part)


def test_a_recipe_that_is_tried_is_measured_at_a_part_and_goes_on_as_if_it_had_not_stopped(case, many_path):
    options = {"train_path": many_path, **TRIED}
    half = case("halves", tried=tried(0.5), **options)
    first = half.train()
    total = half.heard(Started)[0].total_steps
    assert (first.steps, half.heard(Progressed)[-1].validation_loss) == (
        round(total / 2), first.metrics["validation_loss"]
    )  # fmt: skip
    whole = case("halves", tried=tried(1.0), **options)
    second = whole.train()
    assert whole.heard(Started)[0].resumed_from_step == first.steps
    alone = case("alone", tried=tried(1.0), **options)
    expected = alone.train()
    assert second.steps == expected.steps == total
    assert second.metrics["validation_loss"] == expected.metrics["validation_loss"]
    assert second.metrics["validation_examples"] == expected.metrics["validation_examples"] >= 20
    assert not list(alone.job.output_dir.glob("*"))


def test_a_measured_recipe_whose_process_dies_is_measured_again_the_same(case, many_path):
    options = {"train_path": many_path, "tried": tried(0.5), **TRIED}
    first, again = case("dies", **options), case("dies", **options)
    assert again.train().metrics["validation_loss"] != 0
    assert first.train().metrics["validation_loss"] == again.train().metrics["validation_loss"]
    assert first.heard(Progressed) == []


def test_too_few_validation_rows_measure_no_recipe(case):
    with pytest.raises(RunFailed) as failure:
        case(tried=tried(1.0), validation_fraction=0.2).train()
    assert failure.value.field == "train.validation_fraction"


def test_a_run_whose_estimate_is_above_its_ceiling_does_not_start(case):
    run = case(max_hours=1e-9)
    with pytest.raises(RunFailed) as failure:
        run.train()
    assert failure.value.field == "train.max_hours"
    assert "estimate" in failure.value.reason
    assert run.heard(Started) == []


@pytest.mark.parametrize(
    ("ceilings", "left", "spent", "limit"),
    [
        ({}, 1, 0, None),
        ({"max_hours": 3}, 1, 0, 3),
        ({"max_hours": 3, "max_dollars": 4}, 1, 0, 2),
        ({"max_hours": 3}, 2, 1, 3),
        ({"max_hours": 2.9}, 2, 1, "train.max_hours"),
        ({"max_dollars": 1.9}, 1, 0, "train.max_dollars"),
        ({"max_dollars": 3.9}, 1, 1, "train.max_dollars"),
    ],
)
def test_ceilings_are_of_hours_and_dollars_and_of_all_runs_that_are_left(
    case, ceilings: dict[str, float], left: float, spent: float, limit: float | str | None
):
    """The plan is an hour for two dollars."""
    large = processor(memory_bytes=64 << 30, teraflops=1.0, bfloat16=True)
    stats = DatasetStats(examples=24, tokens=240, longest=20, learnt=48)
    made = make_plan(KNOWN["meta-llama/Llama-3.2-1B-Instruct"], stats, TrainSpec(), large)
    of = {number: Interval(low=number, expected=number, high=number) for number in (1.0, 2.0)}
    plan = made.model_copy(update={"hours": of[1.0], "dollars": of[2.0]})
    job = case(tried=Tried(sweep_id="sweep-1", left=left, spent_hours=spent), **ceilings).job
    if isinstance(limit, str):
        with pytest.raises(RunFailed) as failure:
            affordable_hours(job, plan)
        assert failure.value.field == limit
    else:
        assert affordable_hours(job, plan) == limit


def test_a_run_is_stopped_at_its_ceiling_and_can_go_on(case, monkeypatch: pytest.MonkeyPatch):
    run = case("stopped", max_hours=1000.0)
    with monkeypatch.context() as patch:
        patch.setattr("tunewheel_train.preparation.affordable_hours", lambda *_: 1e-9)
        with pytest.raises(RunFailed) as failure:
            run.train()
    assert (failure.value.field, failure.value.step) == ("train.max_hours", 1)
    again = case("stopped", max_hours=1000.0)
    again.train()
    assert again.heard(Started)[0].resumed_from_step == 1
    whole = case("whole")
    whole.train()
    assert all(torch.equal(weight, again.weights()[name]) for name, weight in whole.weights().items())
