"""Two processes that train one run by DDP (gloo) do what one does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from tunewheel_train.progress import Completed, Message, Progressed, Stopped, parse
from tunewheel_train.runs.process import WORKER, run_process, together


def messages(job_file: Path, rank: int = 0) -> list:
    return [parse(line) for line in Path(f"{job_file}.{rank}.out").read_bytes().splitlines()]


def test_the_launcher_runs_the_worker_as_often_as_there_are_gpus():
    from torch.distributed.run import config_from_args, parse_args

    assert together(WORKER, 1, 300.0) == WORKER
    python, *launcher = together(("python", "-m", "w"), 4, 299.5)
    assert (python, launcher[:2]) == ("python", ["-m", "torch.distributed.run"])
    config, _, worker = config_from_args(parse_args(launcher[2:]))
    assert (config.min_nodes, config.nproc_per_node, worker) == (1, 4, ["-u", "-m", "w"])
    assert config.shutdown_timeout == 300


async def test_what_the_service_launches_trains_by_two_processes(trained, case, tmp_path: Path):
    """PyTorch's launcher and all; the tests below fork their processes, which costs less."""
    run, heard = case(), list[Message]()

    async def hear(message: Message) -> None:
        heard.append(message)

    outcome = await run_process(
        "train", run.job, directory=tmp_path / "run", threads=1, stop=asyncio.Event(), stop_seconds=60.0,
        on_message=hear, processes=2,
    )  # fmt: skip
    assert isinstance(outcome, Completed)
    assert outcome.usage is not None
    assert not outcome.usage.comparable
    expected, _ = trained("lora")
    losses = [m.loss for m in heard if isinstance(m, Progressed)]
    assert losses == pytest.approx([m.loss for m in expected.heard(Progressed)], abs=1e-4)
    for name, value in expected.weights().items():
        torch.testing.assert_close(run.weights()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("method", "packed"), [("lora", True), ("full", True), ("lora", False)])
def test_two_processes_end_where_one_does(trained, case, forge, tmp_path: Path, method, packed):
    run = case(method=method, packed=packed)
    job_file = tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, processes=2) == [0, 0]
    assert messages(job_file, rank=1) == []
    expected, alone = trained(method)
    outcome = messages(job_file)[-1]
    assert isinstance(outcome, Completed)
    assert outcome.tokens == alone.tokens
    assert (outcome.usage.comparable, alone.usage.comparable) == (False, True)
    for figure in ("loss", "grad_norm"):
        found = [getattr(m, figure) for m in messages(job_file) if isinstance(m, Progressed)]
        wanted = [getattr(m, figure) for m in expected.heard(Progressed)]
        assert found == pytest.approx(wanted, abs=1e-4, rel=1e-4)
    found = run.weights()
    for name, value in expected.weights().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_step_with_fewer_examples_than_processes_is_still_one_step(case, forge, tmp_path: Path):
    # 24 examples in steps of 23 and 1: the second process has nothing of the last
    options = {"batch_size": 23, "micro_batch_size": 23}
    together_, alone = case("together", **options), case("alone", **options)
    job_file = tmp_path / "job.json"
    job_file.write_text(together_.job.model_dump_json())
    assert forge(job_file, processes=2) == [0, 0]
    alone.train()
    for name, value in alone.weights().items():
        torch.testing.assert_close(together_.weights()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["orpo", "kto"])
def test_two_processes_learn_the_preferences_that_one_does(case, pairs_path, forge, tmp_path: Path, method):
    preference = {"method": method, "learning_rate": 5e-3, "epochs": 1.0, "alone": True}
    # steps of five pairs and of three, one by one: the second process has a piece less than the first
    options = {
        "preference": preference, "preferences_path": pairs_path, "batch_size": 5, "micro_batch_size": 1,
    }  # fmt: skip
    together_, alone = case("together", **options), case("alone", **options)
    job_file = tmp_path / "job.json"
    job_file.write_text(together_.job.model_dump_json())
    assert forge(job_file, processes=2) == [0, 0]
    alone.train()
    losses = [m.loss for m in messages(job_file) if isinstance(m, Progressed)]
    assert losses == pytest.approx([m.loss for m in alone.heard(Progressed)], abs=1e-4)
    for name, value in alone.weights().items():
        torch.testing.assert_close(together_.weights()[name], value, rtol=1e-3, atol=1e-4)


def test_both_stop_together_and_go_on_alone(trained, case, forge, tmp_path: Path):
    run = case()
    job_file = tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, processes=2, point="asked to stop") == [75, 75]
    stopped = messages(job_file)[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.step == 3
    resumed = case()
    assert resumed.train().resumed_from_steps == (stopped.step,)
    for name, value in trained("lora")[0].weights().items():
        torch.testing.assert_close(resumed.weights()[name], value, rtol=1e-3, atol=1e-4)
