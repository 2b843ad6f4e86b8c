"""A part of the examples is validated on; training ends when it gets no better, with the best weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from tunewheel_train.progress import Planned, Progressed
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
