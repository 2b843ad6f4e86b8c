"""The supervisor starts, waits, brings back, gives up, and stops in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from tunewheel_local import supervisor
from tunewheel_local.http import open_session
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.supervisor import (
    PATIENCE_SECONDS,
    READY_SECONDS,
    HttpProgram,
    Kept,
    StartFailed,
    State,
    Supervisor,
)

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def program(name: str, folder: Path, code: str = SERVER) -> HttpProgram:
    port = free_port()
    return HttpProgram(
        name,
        [sys.executable, "-c", code, str(port)],
        env={**os.environ},
        log=folder / f"{name}.log",
        ready_url=f"http://127.0.0.1:{port}/health/ready",
    )


async def until(kept: Kept, state: State, *, restarts: int = 0) -> None:
    async with asyncio.timeout(60):
        while kept.state is not state or kept.restarts < restarts:
            await asyncio.sleep(0.02)


async def test_all_ready_then_stopped_in_reverse(tmp_path: Path) -> None:
    told: list[tuple[str, State]] = []
    keeper = Supervisor(lambda kept: told.append((kept.program.name, kept.state)))
    await keeper.start(program("a", tmp_path), program("b", tmp_path))
    assert [kept.state for kept in keeper.kept] == [State.READY, State.READY]
    await keeper.stop()
    assert [name for name, state in told if state is State.STOPPED] == ["b", "a"]
    assert all(kept.program.exit_code() is not None for kept in keeper.kept)


async def test_a_killed_program_comes_back(tmp_path: Path) -> None:
    keeper = Supervisor()
    await keeper.start(program("a", tmp_path))
    first = keeper["a"].program.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(keeper["a"], State.READY, restarts=1)
    assert keeper["a"].program.pid != first
    await keeper.stop()


async def test_one_that_always_crashes_is_given_up_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    keeper = Supervisor()
    good = program("good", tmp_path)
    bad = program("bad", tmp_path, code="import sys; print('the reason'); sys.exit(3)")
    with pytest.raises(
        StartFailed, match=r"(?s)bad: exited with code 3; given up after 1 restarts.*the reason"
    ):
        await keeper.start(good, bad)
    assert keeper["good"].state is State.READY, "the others go on"
    await keeper.stop()


async def test_one_session_asks_a_program_until_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ClientSession] = []

    def noted(**options: Any) -> ClientSession:
        opened.append(open_session(**options))
        return opened[-1]

    monkeypatch.setattr(supervisor, "open_session", noted)
    asked = program("a", tmp_path)
    assert [await asked.is_ready() for _ in range(3)] == [False] * 3
    await asked.start()
    async with asyncio.timeout(60):
        while not await asked.is_ready():
            await asyncio.sleep(0.02)
    assert [session.closed for session in opened] == [True]
    assert await asked.is_ready(), "asked again after a restart"
    await asked.stop()
    assert [session.closed for session in opened] == [True, True]


async def test_a_fault_of_ours_at_a_start_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    class Faulty(HttpProgram):
        async def start(self) -> None:
            raise OverflowError("port must be 0-65535")

    keeper = Supervisor()
    faulty = Faulty("x", [], env={}, log=tmp_path / "x.log", ready_url="")
    with pytest.raises(
        StartFailed, match=r"x: OverflowError: port must be 0-65535; this is a fault of Tunewheel$"
    ):
        async with asyncio.timeout(60):
            await keeper.start(faulty)
    await keeper.stop()


async def test_a_full_disk_is_told_and_is_no_fault_of_ours(tmp_path: Path) -> None:
    def report(kept: Kept) -> None:
        if kept.state is State.STARTING:
            raise OSError("the disk is full")

    keeper = Supervisor(report)
    with pytest.raises(StartFailed, match=r"a: OSError: the disk is full$"):
        async with asyncio.timeout(60):
            await keeper.start(program("a", tmp_path))
    await keeper.stop()


async def test_one_that_cannot_be_run_fails_at_once(tmp_path: Path) -> None:
    keeper = Supervisor()
    nothing = HttpProgram("x", [str(tmp_path / "nothing")], env={}, log=tmp_path / "x.log", ready_url="")
    with pytest.raises(StartFailed, match=r"x: .*No such file"):
        await keeper.start(nothing)
    await keeper.stop()


class Outage:
    """A program on a clock that passes only where somebody sleeps: from ``begin`` to ``end`` it exits right
    after each start, or runs and never becomes ready."""

    name = "a"
    pid = None

    def __init__(self, folder: Path, *, begin: float, end: float, exits: bool) -> None:
        self.log = folder / "a.log"
        self.log.write_text("the store is away\n")
        self.now = 0.0
        self._begin, self._end, self._exits = begin, end, exits

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def _is_away(self) -> bool:
        return self._begin <= self.now < self._end

    async def start(self) -> None: ...

    async def is_ready(self) -> bool:
        return not self._is_away

    def exit_code(self) -> int | None:
        return 1 if self._exits and self._is_away else None

    async def stop(self) -> bool:
        return True


@pytest.mark.parametrize("exits", [True, False], ids=["exits at once", "is never ready"])
@pytest.mark.parametrize(("minutes", "state"), [(10, State.READY), (60, State.FAILED)])
async def test_an_outage_of_ten_minutes_stops_no_program_for_good_and_one_without_end_does(
    tmp_path: Path, minutes: int, state: State, exits: bool
) -> None:
    outage = Outage(tmp_path, begin=5.0, end=5.0 + minutes * 60, exits=exits)
    keeper = Supervisor(now=lambda: outage.now, sleep=outage.sleep)
    await keeper.start(outage)
    if not exits:  # it dies once, and then hangs at its start
        outage._exits = True
        async with asyncio.timeout(60):
            while keeper["a"].state is State.READY:
                await asyncio.sleep(0)
        outage._exits = False
    async with asyncio.timeout(60):
        while outage.now < 5.0 + minutes * 60 + READY_SECONDS and keeper["a"].state is not State.FAILED:
            await asyncio.sleep(0)
    assert keeper["a"].state is state
    if state is State.FAILED:
        assert PATIENCE_SECONDS < outage.now < PATIENCE_SECONDS + 2 * READY_SECONDS
        assert "the store is away" in keeper["a"].note
    await keeper.stop()
