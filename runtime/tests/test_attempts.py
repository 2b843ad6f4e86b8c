"""Attempts at a job: counted by whoever begins one, on a real store, however the process ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_runtime.attempts import UNFINISHED, Attempts, AttemptsSpent
from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.store import ObjectStore

DIES = """
import asyncio, os, sys
from tunewheel_runtime.attempts import Attempts
from tunewheel_runtime.store import ObjectStore

async def main():
    async with Attempts(ObjectStore(sys.argv[1]), "curate", limit=2).begin("job"):
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "store").as_uri())


async def attempt(store: ObjectStore, error: BaseException | None = None, *, job: str = "job") -> int:
    """Begin with a new count, as after a restart."""
    async with Attempts(store, "curate", limit=2).begin(job, spared=(OSError,)) as number:
        if error is not None:
            raise error
    return number


async def test_after_so_many_failures_no_attempt_is_left(store: ObjectStore) -> None:
    with pytest.raises(TunewheelError, match="first"):
        await attempt(store, TunewheelError("first"))
    for error in (TunewheelError("second"), None):
        with pytest.raises(AttemptsSpent, match="gave up after 2 attempts; the last one: second") as spent:
            await attempt(store, error)
        assert spent.value.failures == ("first", "second")
    assert await attempt(store, job="another") == 1


async def test_a_process_that_is_killed_leaves_its_attempt_counted(store: ObjectStore) -> None:
    for _ in range(2):
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DIES, store.url], timeout=60)
        assert done.returncode == -9
    with pytest.raises(AttemptsSpent) as spent:
        await attempt(store)
    assert spent.value.failures == (UNFINISHED, UNFINISHED)


@pytest.mark.parametrize(
    "error",
    [TransientError("away"), LeaseLost("moved"), OSError("disk full"), asyncio.CancelledError()],
    ids=repr,
)
async def test_an_attempt_does_not_count_if_the_failure_was_not_the_jobs_fault(
    store: ObjectStore, error: BaseException
) -> None:
    for _ in range(3):
        with pytest.raises(type(error)):
            await attempt(store, error)
    assert await attempt(store) == 1


async def test_an_attempt_that_ends_well_clears_the_count(store: ObjectStore) -> None:
    with pytest.raises(TunewheelError, match="once"):
        await attempt(store, TunewheelError("once"))
    assert await attempt(store) == 2
    assert await attempt(store) == 1
    assert await store.list("attempts") == []


async def test_two_that_begin_at_once_are_two_attempts(store: ObjectStore) -> None:
    both = await asyncio.gather(
        *(attempt(store, TunewheelError("no")) for _ in range(2)), return_exceptions=True
    )
    assert AttemptsSpent in {type(error) for error in both}
    with pytest.raises(AttemptsSpent) as spent:
        await attempt(store)
    assert spent.value.failures == ("no", "no")


async def test_a_long_reason_is_cut(store: ObjectStore) -> None:
    with pytest.raises(TunewheelError, match="x"):
        await attempt(store, TunewheelError("x" * 5_000))
    with pytest.raises(AttemptsSpent) as spent:
        await attempt(store, TunewheelError("y"))
    assert len(spent.value.failures[0]) == 500


async def test_the_words_of_an_error_that_is_not_ours_are_not_kept(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="jane@example"):
        await attempt(store, ValueError("'jane@example.com' is no number"))
    with pytest.raises(AttemptsSpent, match="the last one: KeyError; see the log") as spent:
        await attempt(store, KeyError("jane@example.com"))
    assert spent.value.failures[0] == "ValueError; see the log"


async def test_a_job_that_ended_well_keeps_its_outcome_where_its_count_cannot_be_cleared(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise TransientError("nothing may be deleted here")

    monkeypatch.setattr(store, "delete", refuse)
    assert [await attempt(store), await attempt(store)] == [1, 2]
