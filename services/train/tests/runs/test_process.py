"""What a training process may keep silent about, and for how long; no clock but the test's own passes."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tunewheel_train.job import Job
from tunewheel_train.progress import Alive, Message, Searching, Stopped
from tunewheel_train.runs.process import (
    SPELLS,
    Last,
    Patience,
    ProcessDied,
    environment,
    run_process,
    train_once,
)
from tunewheel_train.settings import Settings
from tunewheel_train.shortage import out_of_memory

HOUR = 3_600.0


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., asyncio.Future[tuple[Last, list[Message]]]]:
    """Run a process that says ``words`` and, with ``rest``, does that line of Python."""

    async def run(words: Sequence[Message], patience: Patience, rest: str = "") -> tuple[Last, list[Message]]:
        said = "\n".join(word.model_dump_json() for word in words)
        job = Job(
            run_id="run-1", base_model="m", train_path=tmp_path, output_dir=tmp_path, work_dir=tmp_path,
            cache_dir=tmp_path,
        )  # fmt: skip
        heard: list[Message] = []

        async def hear(message: Message) -> None:
            heard.append(message)

        last = await run_process(
            "train", job, directory=tmp_path, threads=1, stop=asyncio.Event(), stop_seconds=1.0,
            on_message=hear, patience=patience, worker=(sys.executable, "-c", f"print({said!r}); {rest}"),
        )  # fmt: skip
        return last, heard

    return run


def an_hour_passes(*, patience: float) -> Patience:
    """Between any two lines."""
    return Patience(stuck_seconds=patience, clock=itertools.count(0, HOUR).__next__)


async def test_a_slow_step_whose_process_lives_is_waited_for(run):
    last, heard = await run([Alive(), Alive(), Stopped(step=1)], an_hour_passes(patience=9 * HOUR))
    assert last == Stopped(step=1)
    assert heard == [Alive(), Alive()]


async def test_one_that_lives_and_comes_no_further_is_killed(run):
    with pytest.raises(ProcessDied, match=r"but made no progress for 1800 s \(TUNEWHEEL_STUCK_SEC"):
        await run([Alive(), Alive()], an_hour_passes(patience=HOUR / 2), "input()")


async def test_a_search_that_moves_bytes_comes_further(run):
    words = [Searching(moved_bytes=number << 20) for number in range(9)]
    last, heard = await run([*words, Alive(), Stopped(step=1)], an_hour_passes(patience=1.5 * HOUR))
    assert last == Stopped(step=1)
    assert heard == [*words, Alive()]


async def test_one_that_gives_no_sign_of_life_is_killed(run):
    patience = Patience(silent_seconds=90.0, silence=lambda seconds: asyncio.timeout(0))
    with pytest.raises(ProcessDied, match=r"no sign of life for 90 s \(TUNEWHEEL_SILENT_SECONDS\)"):
        await run([], patience, "import signal; signal.pause()")


async def test_a_service_that_was_stalled_itself_still_hears_what_was_said_meanwhile(run):
    spells = itertools.count(1)
    patience = Patience(silence=lambda seconds: asyncio.timeout(0 if next(spells) < SPELLS else None))
    last, _ = await run([Stopped(step=1)], patience)
    assert last == Stopped(step=1)


@pytest.mark.parametrize(("line", "short"), [("out of memory", True), ("invalid argument", False)])
async def test_want_of_memory_that_bitsandbytes_ends_the_process_for_is_told(
    tmp_path: Path, line: str, short: bool
) -> None:
    job = Job(
        run_id="run-1", base_model="m", train_path=tmp_path, output_dir=tmp_path, work_dir=tmp_path,
        cache_dir=tmp_path,
    )  # fmt: skip
    said = f"Error {line} at line 380 in file ops.cu"

    async def hear(message: Message) -> None:
        raise AssertionError(message)

    trying = train_once(
        job, Settings(train_gpus=""), directory=tmp_path, stop=asyncio.Event(), on_message=hear,
        worker=(sys.executable, "-c", f"import sys; print({said!r}, file=sys.stderr); sys.exit(1)"),
    )  # fmt: skip
    if short:
        assert await trying == out_of_memory()
    else:
        with pytest.raises(ProcessDied, match="with exit code 1: Error invalid argument"):
            await trying


def test_the_allocator_joins_blocks_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert environment(1)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert environment(1)["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"
