"""Two processes that each hold a part of the model (FSDP2, gloo) do what one process does."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.model.sharding import shards_of, why_whole
from tunewheel_train.progress import Completed, Progressed, Warned, parse
from tunewheel_train.trainers import checkpoints

NIGHTLY = pytest.mark.nightly("matrices")


def messages(job_file: Path) -> list:
    return [parse(line) for line in Path(f"{job_file}.0.out").read_bytes().splitlines()]


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "then"),
    [pytest.param("lora", 2, marks=NIGHTLY), pytest.param("full", 2, marks=NIGHTLY), ("lora", 1)],
)
def test_two_halves_stopped_and_resumed_in_halves_or_whole_end_where_one_whole_does(
    trained, case, forge, tmp_path: Path, method, then
):
    run = case(method=method, sharding="fsdp")
    job_file = tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, processes=2, point="asked to stop") == [75, 75]
    assert forge(job_file, processes=then) == [0] * then
    outcome = messages(job_file)[-1]
    assert isinstance(outcome, Completed)
    expected, alone = trained(method)
    assert outcome.tokens == alone.tokens
    assert outcome.resumed_from_steps == (3,)
    losses = [m.loss for m in messages(job_file) if isinstance(m, Progressed)]
    assert losses == pytest.approx([m.loss for m in expected.heard(Progressed)], abs=1e-4)
    agree(run.weights(), expected.weights())


@NIGHTLY
def test_halves_learn_the_preferences_that_a_whole_does(case, pairs_path, forge, tmp_path: Path):
    preference = {"learning_rate": 5e-3, "epochs": 1.0, "alone": True}
    options = {"preference": preference, "preferences_path": pairs_path}
    halves, alone = case("halves", **options, sharding="fsdp"), case("alone", **options)
    job_file = tmp_path / "job.json"
    job_file.write_text(halves.job.model_dump_json())
    assert forge(job_file, processes=2) == [0, 0]
    alone.train()
    losses = [m.loss for m in messages(job_file) if isinstance(m, Progressed)]
    assert losses == pytest.approx([m.loss for m in alone.heard(Progressed)], abs=1e-4)
    agree(halves.weights(), alone.weights())


@pytest.mark.parametrize("first", [True, False])
def test_parts_come_together_one_by_one_and_in_the_first_process_alone(monkeypatch, first):
    at_once, held = [], []

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        at_once.append(sum(reference() is not None for reference in held))
        copy = tensor.clone()
        held.append(weakref.ref(copy))
        vars(copy)["to"] = lambda *_, **__: torch.zeros(1)  # as from a GPU: what is kept is another copy
        return copy

    layer = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(4)).sum().backward()
    optimizer.step()
    monkeypatch.setattr(checkpoints, "whole", gather)
    trainer = SimpleNamespace(model=layer, optimizer=optimizer)
    files = checkpoints._tensors(trainer, keep=first, copied=False, without={})
    assert len(held) == 6 + 3 * 6
    assert {name: len(tensors) for name, tensors in files.items()} == (
        {checkpoints.WEIGHTS: 6, checkpoints.OPTIMIZER: 18} if first
        else {checkpoints.WEIGHTS: 0, checkpoints.OPTIMIZER: 0}
    )  # fmt: skip
    assert max(at_once) <= 1


@pytest.mark.parametrize(
    ("recipe", "shards"),
    [({}, 4), ({"method": "full"}, 4), ({"rslora": True}, 4), ({"method": "qlora"}, 1), ({"dora": True}, 1)],
    ids=str,
)
def test_what_cannot_be_cut_is_whole_in_every_process(recipe: dict, shards: int):
    spec = TrainSpec.model_validate(recipe)
    assert shards_of(spec, sharding="fsdp", processes=4) == shards
    assert shards_of(spec, sharding="none", processes=4) == 1
    assert (why_whole(spec) is None) == (shards == 4)


def test_a_run_that_cannot_be_cut_says_so(monkeypatch, case):
    from tunewheel_train.recipe import _shards

    monkeypatch.setenv("WORLD_SIZE", "4")
    run = case(method="qlora", sharding="fsdp")
    assert _shards(run.job, run.messages.append) == 1
    (warning,) = run.heard(Warned)
    assert warning.reason == "every process holds the whole model: 4-bit weights cannot be cut"
