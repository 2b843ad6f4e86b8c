"""Two processes that train one run by DDP (gloo) do what one does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from tunewheel_train.progress import Completed, Message, Planned, Progressed, Stopped, parse
from tunewheel_train.runs.process import WORKER, one_of, run_process, together
from tunewheel_train.runs.slots import Node
from tunewheel_train.trainers.sft_trainer import SftTrainer
from tunewheel_train.trainers.stepping import PlannedSteps

NIGHTLY = pytest.mark.nightly("matrices")


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
    assert config.rdzv_backend == "static"  # the others unpickle what they find at their port
    other, _, _ = config_from_args(parse_args(list(together(("python", "-m", "w"), 4, 300.0)[3:])))
    assert config.rdzv_endpoint.startswith("127.0.0.1:")
    assert config.rdzv_endpoint != other.rdzv_endpoint
    node = Node(1, 3, "run-0.runs")
    config, _, _ = config_from_args(parse_args(list(together(WORKER, 4, 300.0, node)[3:])))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (3, 3, 4)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "run-0.runs:29500")
    assert config.rdzv_configs["rank"] == 1
    assert together(WORKER, 1, 300.0, node) == WORKER
    assert one_of(node) == {
        "RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "run-0.runs", "MASTER_PORT": "29500",
    }  # fmt: skip


@pytest.mark.parametrize("items", [1, 3, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_a_step_is_divided_by_any_number_of_processes_and_stays_the_step(items: int, processes: int):
    step = [[at] * (at + 1) for at in range(items)]
    parts = [Part(processes, rank).cut(step) for rank in range(processes)]
    # a process without an item of its own has one whose loss counts nothing
    taken = [piece for part in parts for piece, weight in part.pieces if weight != math.inf]
    assert sorted(item for piece in taken for item in piece) == step
    assert len({len(part.pieces) for part in parts}) == 1
    assert {part.tokens for part in parts} == {sum(map(len, step))}
    # DDP averages gradients: each loss is divided by the step's weight over the number of processes
    weights = {weight for part in parts for _, weight in part.pieces} - {math.inf}
    assert weights == {sum(map(len, step)) / processes}


class Part(PlannedSteps):
    """What one of the processes does, whatever its trainer computes."""

    def __init__(self, processes: int, rank: int) -> None:
        self.accelerator = SimpleNamespace(num_processes=processes, process_index=rank)
        self.course = SimpleNamespace(micro_batch_size=2, parts=1)

    def lay_out(self, items):
        return list(items)

    def weight_of(self, items):
        return sum(map(len, items))


@pytest.mark.parametrize("items", [1, 7, 8])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_validation_is_divided_by_any_number_of_processes_and_its_loss_stays(items: int, processes: int):
    parts = [Validating(processes, rank, items) for rank in range(processes)]
    losses = [SftTrainer.validate(part) for part in parts]  # type: ignore[arg-type]
    assert sum(losses) / processes == pytest.approx(Validating(1, 0, items).wanted)
    assert sorted(item for part in parts for item in part.taken) == list(range(1, items + 1))
    assert max(len(part.taken) for part in parts) == math.ceil(items / processes)


class Validating(Part):
    """The validation of one of the processes. The loss of an item is the square of its length."""

    def __init__(self, processes: int, rank: int, items: int) -> None:
        super().__init__(processes, rank)
        self.accelerator.reduce = lambda loss, how: loss
        self.course.validation = [[at] * at for at in range(1, items + 1)]
        self.args = SimpleNamespace(device="cpu")
        self.model = torch.nn.Identity()
        self.compute_loss_context_manager = contextlib.nullcontext
        self.taken: list[int] = []

    @property
    def wanted(self) -> float:
        lengths = [len(item) for item in self.course.validation]
        return sum(length**2 for length in lengths) / sum(lengths)

    def lay_out(self, items):
        return torch.tensor([len(item) for item in items])

    def loss_of(self, model, piece, weight):
        self.taken += piece.tolist() if weight != math.inf else []
        return (piece.float() ** 2).sum() / weight


@NIGHTLY
def test_two_processes_validate_as_one_does(case, conversation_of, forge, tmp_path: Path):
    path = tmp_path / "many.parquet"
    pl.DataFrame([conversation_of(number) for number in range(63)]).write_parquet(path)
    # the fewest steps that may be validated after: 20 examples at a twentieth of the cost
    options = {"train_path": path, "validation_fraction": 0.45, "epochs": 6.0, "batch_size": 44,
               "micro_batch_size": 4, "checkpoint_steps": 5}  # fmt: skip
    together_, alone = case("together", **options), case("alone", **options)
    job_file = tmp_path / "job.json"
    job_file.write_text(together_.job.model_dump_json())
    assert forge(job_file, processes=2) == [0, 0]
    alone.train()
    found, wanted = (
        [m.validation_loss for m in heard if isinstance(m, Progressed) and m.validation_loss is not None]
        for heard in (messages(job_file), alone.messages)
    )
    assert wanted
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_processes_whose_gpus_do_not_come_up_do_not_train_on_the_processor(case, forge, tmp_path: Path):
    run, job_file = case(gpus="0,1"), tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, processes=2) == [65, 65]
    (failed,) = messages(job_file)
    assert (failed.kind, failed.field) == ("failed", "(device)")
    assert not run.job.output_dir.exists()


@NIGHTLY
async def test_what_the_service_launches_trains_by_two_processes(trained, case, tmp_path: Path):
    """PyTorch's launcher and all. The tests below fork their processes, which costs less, and the first test
    of this file reads the launcher's arguments as PyTorch does."""
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


@pytest.mark.parametrize(
    ("method", "packed"),
    [("lora", True), pytest.param("full", True, marks=NIGHTLY), pytest.param("lora", False, marks=NIGHTLY)],
)
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


FREE = {"processes": 0, "base_parameters": 100_000}


@NIGHTLY
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_run_that_divides_itself_ends_with_the_weights_of_one_process(
    case, forge, tmp_path: Path, dropout: float
):
    run, job_file = case(dropout=dropout, micro_batch_size=1, **FREE), tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, threads=2, point="second process dies") == [1]
    assert forge(job_file, threads=2, point="checkpoint reported") == [-signal.SIGKILL]
    assert forge(job_file, threads=2) == [0]
    outcome, heard = messages(job_file)[-1], messages(job_file)
    assert isinstance(outcome, Completed)
    assert outcome.resumed_from_steps == (2, 4)
    assert outcome.usage.comparable
    assert {m.plan.processes for m in heard if isinstance(m, Planned)} == {2}
    alone = case("alone", dropout=dropout, micro_batch_size=1)
    alone.train()
    assert {m.step: m.loss for m in heard if isinstance(m, Progressed)} == {
        m.step: m.loss for m in alone.heard(Progressed)
    }
    assert all(torch.equal(value, run.weights()[name]) for name, value in alone.weights().items())


def test_one_process_goes_on_to_the_bit_where_two_stopped(trained, case, forge, tmp_path: Path):
    run, job_file = case(**FREE), tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, threads=2, point="asked to stop") == [75]
    resumed = case()
    assert resumed.train().resumed_from_steps == (3,)
    expected = trained("lora")[0].weights()
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in expected.items())


@NIGHTLY
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


@NIGHTLY
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


@NIGHTLY
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
