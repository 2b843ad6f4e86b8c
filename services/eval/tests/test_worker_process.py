"""The real measuring process: killed, stopped, orphaned, and unfit candidates."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval import worker
from tunewheel_eval.errors import UnfitCandidate, WorkerFailed
from tunewheel_eval.job import ContestantJob, Job, Progress
from tunewheel_eval.measurement import read_measurement
from tunewheel_eval.measuring import measure
from tunewheel_eval.worker_process import Stopped, run_worker

GENEROUS_SECONDS = 600.0
WAITS_AT_THE_THIRD_ROW = """
import signal
from tunewheel_eval import measuring
from tunewheel_eval.worker import main

tell = measuring._Work.tell

def tell_and_wait(work):
    tell(work)
    if len(work._file.rows) == 3:
        while True:
            signal.pause()

measuring._Work.tell = tell_and_wait
main()
"""
WAITING = (sys.executable, "-c", WAITS_AT_THE_THIRD_ROW)
"""The measuring process, which comes no further than its third row: whoever interrupts it is not too late."""


@pytest.fixture
def job(
    tiny_base: BaseModel, adapters: tuple[Path, Path], examples: tuple[ChatExample, ...], tmp_path: Path
) -> Path:
    base = BaseModelRef(name=str(tiny_base.path), revision=tiny_base.revision)
    contestants = tuple(
        ContestantJob(
            role=role, model_key=role.value, base=base, directory=directory, rows=tmp_path / f"{role}.jsonl"
        )
        for role, directory in ((Role.CANDIDATE, adapters[0]), (Role.BASE, None))
    )
    whole = Job(
        contestants=contestants,
        examples=examples,
        items=(),
        max_output_tokens=12,
        cache_dir=tmp_path,
        dtype="float32",
        batch_size=1,
        threads=1,
    )
    path = tmp_path / "job.json"
    path.write_text(whole.model_dump_json())
    return path


def workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if _is_worker(one)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return tuple(process.cmdline()[1:3]) == WAITING[1:]
    except psutil.NoSuchProcess:  # a zombie too
        return False


async def finish(job: Path, *, worker: Sequence[str]) -> None:
    measuring = run_worker(job, lost=asyncio.Event(), on_progress=nothing, worker=worker)
    await asyncio.wait_for(measuring, GENEROUS_SECONDS)


async def test_killed_worker_stops_the_service_and_the_next_one_resumes(job: Path) -> None:
    """The processes that answer end with it."""
    whole = Job.model_validate_json(job.read_text())
    job.write_text(whole.model_copy(update={"threads": 2}).model_dump_json())
    beside: list[psutil.Process] = []

    async def kill(line: Progress) -> None:
        if line.done == 3:  # the worker comes no further, whichever contestant's rows these are
            beside.extend(workers()[0].children())
            workers()[0].send_signal(signal.SIGKILL)

    def written() -> dict[str, Any]:
        files = {role: (job.parent / f"{role}.jsonl") for role in ("candidate", "base")}
        read = {role: read_measurement(file.read_text()) for role, file in files.items() if file.exists()}
        return {role: one.rows for role, one in read.items() if one is not None}

    with pytest.raises(WorkerFailed, match="signal 9"):
        await asyncio.wait_for(
            run_worker(job, lost=asyncio.Event(), on_progress=kill, worker=WAITING), GENEROUS_SECONDS
        )
    assert len(beside) == 2
    assert (await asyncio.to_thread(psutil.wait_procs, beside, GENEROUS_SECONDS))[1] == []
    survived = written()
    assert max(map(len, survived.values())) == 3
    said: list[Progress] = []  # what goes on needs no process of its own
    await asyncio.to_thread(measure, Job.model_validate_json(job.read_text()), said.append)
    assert said[-1].done == said[-1].total == 6
    kept = written()
    assert set(kept) == {"candidate", "base"}
    for role, rows in survived.items():
        assert {key: kept[role][key] for key in rows} == rows


async def started_worker() -> psutil.Process:
    """The worker process, as soon as it is there: it loads its libraries then, or works already."""
    async with asyncio.timeout(GENEROUS_SECONDS):
        while not (found := workers()):
            await asyncio.sleep(0.01)
    return found[0]


async def test_lost_lease_ends_the_worker(job: Path) -> None:
    lost = asyncio.Event()

    async def lose() -> None:
        await started_worker()
        lost.set()

    losing = asyncio.create_task(lose())
    with pytest.raises(Stopped):
        await asyncio.wait_for(
            run_worker(job, lost=lost, on_progress=nothing, worker=WAITING), GENEROUS_SECONDS
        )
    await losing
    assert workers() == []


async def test_a_caller_that_is_cancelled_leaves_no_worker(job: Path) -> None:
    running = asyncio.create_task(run_worker(job, lost=asyncio.Event(), on_progress=nothing, worker=WAITING))
    await started_worker()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert workers() == []


async def nothing(_: Progress) -> None: ...


async def test_worker_ends_with_its_parent_however_that_dies(job: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from tunewheel_eval.worker_process import run_worker\n"
        "async def go(line): ...\n"
        f"asyncio.run(run_worker(pathlib.Path(sys.argv[1]), lost=asyncio.Event(), on_progress=go,"
        f" worker={WAITING!r}))\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(job))
    worker = await started_worker()
    parent.kill()
    await parent.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, [worker], GENEROUS_SECONDS)
    assert (gone, alive) == ([worker], [])


def raising(error: str) -> Sequence[str]:
    """A measuring process whose measuring raises ``error``, a Python expression, before a model's libraries
    are loaded. What raises these errors is in ``test_measuring``."""
    script = (
        "import sys, types\n"
        "from tunewheel_basemodel.errors import BaseModelUnreachable\n"
        "from tunewheel_eval.errors import UnfitCandidate, UnusableContestant\n"
        "def measure(*_):\n"
        f"    raise {error}\n"
        "sys.modules['tunewheel_eval.measuring'] = types.SimpleNamespace(measure=measure)\n"
        "from tunewheel_eval.worker import main\n"
        "main()\n"
    )
    return (sys.executable, "-c", script)


async def test_unfit_candidate_is_told_with_its_field(job: Path) -> None:
    with pytest.raises(UnfitCandidate, match="no directory") as caught:
        await finish(job, worker=raising("UnfitCandidate(field='adapter', reason='is no directory')"))
    assert caught.value.field == "adapter"


async def test_a_hub_that_does_not_answer_refuses_no_candidate(job: Path) -> None:
    """A refusal is final: a candidate must not get one because the network was down."""
    with pytest.raises(TransientError, match="base model"):
        await finish(job, worker=raising("BaseModelUnreachable('away')"))


async def test_a_champion_that_does_not_load_is_named(job: Path) -> None:
    with pytest.raises(WorkerFailed, match="the champion's adapter does not load"):
        await finish(job, worker=raising('UnusableContestant("the champion\'s adapter does not load")'))


async def test_broken_worker_is_no_fault_of_the_candidate(job: Path) -> None:
    job.write_text("{}")
    with pytest.raises(WorkerFailed, match="ValidationError; the measuring process's log"):
        await finish(job, worker=raising("AssertionError"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        BrokenProcessPool(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_called_so(error: Exception) -> None:
    assert "memory ran out" in worker._reason(error)
