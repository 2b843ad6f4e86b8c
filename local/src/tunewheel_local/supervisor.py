"""Keeps processes running: starts them, waits until they are ready, and restarts those that die."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tunewheel_contracts.errors import TunewheelError

from tunewheel_local import leash
from tunewheel_local.http import open_session, own_certificate
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.errors import BrokerError, read_log

if TYPE_CHECKING:
    import aiohttp

POLL_SECONDS = 0.1
READY_POLL_SECONDS = 0.5
STOP_SECONDS = 40.0
"""How long a program may take to stop. A service has 30 s to write a checkpoint and end."""
READY_SECONDS = 300.0
"""How long a program may take to become ready. The first start of the engine converts its model."""
PATIENCE_SECONDS = 900.0
"""A program that was ready once is given up after crashing for so long, without running for
``STEADY_SECONDS`` in between. A store or a broker may be away for ten minutes."""
STEADY_SECONDS = 120.0
MAX_FAILED_STARTS = 1
"""How often a program that was never ready is restarted. The cause is usually a wrong setting."""
_TAIL_LINES = 30


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class StartFailed(TunewheelError):
    """A program did not become ready; the message holds the end of its log."""


class Program(Protocol):
    """A program that the supervisor can run."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def pid(self) -> int | None: ...
    async def start(self) -> None: ...
    async def is_ready(self) -> bool: ...
    def exit_code(self) -> int | None: ...
    async def stop(self) -> bool: ...


class HttpProgram:
    """A process that answers 200 at ``ready_url`` once it can work. A process that reports there that it is a
    standby for another wheel's process counts as ready too."""

    def __init__(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path, ready_url: str
    ) -> None:
        self.name = name
        self.log = log
        self.ready_url = ready_url
        self._argv = argv
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        """Is kept until the process is ready: to open one reads the system's certificates."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        self._process = await asyncio.to_thread(leash.spawn, self._argv, env=self._env, log=self.log)

    async def is_ready(self) -> bool:
        import aiohttp
        from tunewheel_runtime.tls import InvalidTls

        try:
            if self._session is None:
                timeout = aiohttp.ClientTimeout(total=5)
                self._session = open_session(probe=own_certificate(self._env), timeout=timeout)
            async with self._session.get(self.ready_url) as answer:
                ready = answer.status == 200
        except (aiohttp.ClientError, TimeoutError, InvalidTls):
            return False
        if ready:
            await self._close_session()
        return ready

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    async def stop(self) -> bool:
        await self._close_session()
        if self._process is None:
            return True
        return await asyncio.to_thread(leash.stop, self._process, patience=STOP_SECONDS)

    async def _close_session(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class BrokerProgram:
    """The local Kafka, which is ready as soon as ``start`` returns."""

    name = "broker"

    def __init__(self, kafka: LocalKafka, progress: Callable[[int, int], None] | None = None) -> None:
        self.kafka = kafka
        self.log = kafka.log
        self._progress = progress
        self._starting: asyncio.Task[LocalKafka] | None = None

    @property
    def pid(self) -> int | None:
        return self.kafka.process.pid if self.kafka.process else None

    async def start(self) -> None:
        self._starting = asyncio.create_task(asyncio.to_thread(self.kafka.start, self._progress))
        await asyncio.wait([self._starting])  # A start that is given up goes on in its thread.
        self._starting.result()

    async def is_ready(self) -> bool:
        return self.kafka.running

    def exit_code(self) -> int | None:
        return self.kafka.process.poll() if self.kafka.process else None

    async def stop(self) -> bool:
        await asyncio.to_thread(self.kafka.stop)
        if self._starting is not None:
            while not self._starting.done():
                await asyncio.wait([self._starting], timeout=POLL_SECONDS)
                await asyncio.to_thread(self.kafka.stop)
            self._starting.exception()  # of a start that was given up; asyncio warns if nobody asks for it
        return True


@dataclass(slots=True)
class Kept:
    """A program and its state."""

    program: Program
    state: State = State.WAITING
    note: str = ""
    crashes: int = 0
    crashing_since: float | None = None
    restarts: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Is set once the program is ready or given up."""
    keeper: asyncio.Task[None] | None = None


Report = Callable[[Kept], None]


class Supervisor:
    """Runs programs until it is told to stop. ``report`` is called at every change of a program's state.
    ``now`` and ``sleep`` are the clock, in seconds."""

    def __init__(
        self,
        report: Report | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.kept: list[Kept] = []
        self._report = report or (lambda _: None)
        self._now = now
        self._sleep = sleep

    async def start(self, *programs: Program) -> None:
        """Start programs concurrently and return when all are ready.

        Raises:
            StartFailed: one of them was given up. The others keep running.
        """
        news = [Kept(program) for program in programs]
        self.kept += news
        for kept in news:
            kept.keeper = asyncio.create_task(self._keep_or_tell(kept), name=f"keep {kept.program.name}")
        await asyncio.gather(*(kept.settled.wait() for kept in news))
        for kept in news:
            if kept.state is State.FAILED:
                raise StartFailed(f"{kept.program.name}: {kept.note}")

    async def stop(self) -> None:
        """Stop all programs in the reverse order of their start."""
        for kept in reversed(self.kept):
            await self.stop_one(kept)

    async def stop_one(self, kept: Kept) -> None:
        if kept.keeper is not None:
            kept.keeper.cancel()
            await asyncio.gather(kept.keeper, return_exceptions=True)
        gently = await kept.program.stop()
        self._change(kept, State.STOPPED, "" if gently else f"killed: did not stop within {STOP_SECONDS:g} s")

    def __getitem__(self, name: str) -> Kept:
        return next(kept for kept in self.kept if kept.program.name == name)

    def _change(self, kept: Kept, state: State, note: str = "") -> None:
        kept.state, kept.note = state, note
        if state in (State.READY, State.FAILED):
            kept.settled.set()
        self._report(kept)

    async def _keep_or_tell(self, kept: Kept) -> None:
        """Keep; a fault of ours fails the program too, or who waits for it would wait forever.

        An ``OSError`` is the machine's fault, such as a full disk.
        """
        try:
            await self._keep(kept)
        except Exception as error:
            whose = "" if isinstance(error, OSError) else "; this is a fault of Tunewheel"
            self._change(kept, State.FAILED, f"{type(error).__name__}: {error}{whose}")
            raise

    async def _keep(self, kept: Kept) -> None:
        while True:
            self._change(kept, State.STARTING)
            try:
                why = await self._run_once(kept)
            except (OSError, BrokerError) as error:
                # No restart at the first start: a taken port or a damaged data directory needs a person.
                if not kept.restarts:
                    self._change(kept, State.FAILED, str(error))
                    return
                why = str(error)
            kept.crashes += 1
            if self._is_hopeless(kept):
                again = f"given up after {kept.crashes - 1} restarts"
                self._change(kept, State.FAILED, f"{why}; {again}.{_tail(kept)}")
                return
            delay = min(0.5 * 2 ** (kept.crashes - 1), 15.0)
            self._change(kept, State.RESTARTING, f"{why}; again in {delay:g} s")
            await self._sleep(delay)
            kept.restarts += 1

    def _is_hopeless(self, kept: Kept) -> bool:
        if not kept.settled.is_set():
            return kept.crashes > MAX_FAILED_STARTS
        if kept.crashing_since is None:
            kept.crashing_since = self._now()
        return self._now() - kept.crashing_since > PATIENCE_SECONDS

    async def _run_once(self, kept: Kept) -> str:
        """Start one process and wait for its end; return how it ended."""
        program = kept.program
        began = self._now()
        await program.start()
        while program.exit_code() is None:
            waited = self._now() - began
            if kept.state is State.STARTING and await program.is_ready():
                self._change(kept, State.READY)
            elif kept.state is State.STARTING and waited > READY_SECONDS:
                await program.stop()
                return f"not ready within {READY_SECONDS:g} s"
            if kept.state is State.READY and waited > STEADY_SECONDS:
                kept.crashes, kept.crashing_since = 0, None
            await self._sleep(POLL_SECONDS if kept.state is State.STARTING else READY_POLL_SECONDS)
        return f"exited with code {program.exit_code()}"


def _tail(kept: Kept) -> str:
    lines = read_log(kept.program.log).splitlines()[-_TAIL_LINES:]
    return f" The whole log is {kept.program.log}, it ends with:\n" + "\n".join(lines)
