"""Registries whose connections to Kafka run through proxies of the test, which see a decision pass.

``Stall`` stops a registry, or cuts it off, in the moment in which its decision is on its way. What a cut held
back is delivered when the cut is over: so does a network that was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
from tunewheel_local.kafka.ports import free_port

from .dying_registry import serve_through

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tunewheel_registry.main"])
"""Processes of the service, forked from one that has its libraries."""
Kind = Literal["stop", "cut"]


@dataclass
class Stall:
    """Strikes a registry when it sends the record that holds ``mark``."""

    mark: bytes
    kind: Kind
    held_back: bool
    """Whether the request with the record waits for the end of the stall; else its answer does."""
    after_ms: float = 0.0
    """From the request until the stall."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Passes on the connections of one registry to the brokers."""

    def __init__(self) -> None:
        self.ports: dict[int, int] = {}
        """The proxy's port by that of the broker."""
        self.stall: Stall | None = None
        self.strike: Callable[[], None] = lambda: None
        self._flows = asyncio.Event()
        self._flows.set()
        self._servers: list[asyncio.Server] = []
        self._passing = set[asyncio.Task[Any]]()

    @classmethod
    async def before(cls, servers: str) -> Self:
        made = cls()
        for server in servers.split(","):
            port = int(server.rpartition(":")[2])
            made.ports[port] = free_port()
            listening = await asyncio.start_server(
                lambda r, w, to=port: made._connected(r, w, to), "127.0.0.1", made.ports[port]
            )
            made._servers.append(listening)
        return made

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def cut(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: int) -> None:
        await self._flows.wait()
        there, here = await asyncio.open_connection("127.0.0.1", to)
        for way in (self._pass(reader, here, seen=True), self._pass(there, writer, seen=False)):
            self._passing.add(task := asyncio.create_task(way))
            task.add_done_callback(self._passing.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, seen: bool) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(1 << 16):
                stall = self.stall
                if seen and stall is not None and stall.mark in data and not stall.begun.is_set():
                    if stall.held_back:
                        self._begin(stall)
                    else:
                        asyncio.get_running_loop().call_later(stall.after_ms / 1000, self._begin, stall)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()

    def _begin(self, stall: Stall) -> None:
        if not stall.begun.is_set():
            self.cut()
            if stall.kind == "stop":
                self.strike()
                if not stall.held_back:
                    self.heal()
            stall.begun.set()


class Replica:
    """One registry process behind its proxy."""

    def __init__(self, proxy: Proxy, environment: dict[str, str], log: Path) -> None:
        self._proxy = proxy
        self._environment = environment
        self._log = log
        self.process: BaseProcess | None = None

    @classmethod
    async def before(cls, servers: str, folder: Path, name: str, **settings: str) -> Self:
        environment = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
            "TUNEWHEEL_STORE_URL": (folder / "store").as_uri(),
            "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
            "TUNEWHEEL_IDENTITY": "open",
            **settings,
        }
        return cls(await Proxy.before(servers), environment, folder / f"{name}.log")

    def start(self) -> None:
        self.ports = {"TUNEWHEEL_HTTP_PORT": free_port(), "TUNEWHEEL_HEALTH_PORT": free_port()}
        environment = self._environment | {name: str(port) for name, port in self.ports.items()}
        arguments = (environment, self._log, self._proxy.ports)
        self.process = PROCESSES.Process(target=serve_through, args=arguments)
        self.process.start()
        self._proxy.strike = lambda: self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def arm(self, stall: Stall) -> None:
        self._proxy.stall = stall

    def go_on(self) -> None:
        """End the stall, whatever it was."""
        self._proxy.stall = None
        self._signal(signal.SIGCONT)
        self._proxy.heal()

    async def ended(self, seconds: float) -> bool:
        """Return whether the process ends by itself within ``seconds``."""
        assert self.process is not None
        await asyncio.to_thread(self.process.join, seconds)
        return self.process.exitcode is not None

    async def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join(30)
        await self._proxy.close()

    async def health(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """Return what ``/health/ready`` says; nothing while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self.ports['TUNEWHEEL_HEALTH_PORT']}/health/ready"
            async with session.get(url, timeout=aiohttp.ClientTimeout(2)) as answer:
                return await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}

    async def models(self, session: aiohttp.ClientSession, project: str) -> list[Any]:
        """Return every model of the project with its history; nothing while the process does not answer."""
        url = f"http://127.0.0.1:{self.ports['TUNEWHEEL_HTTP_PORT']}/v1/projects/{project}/models"
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(5)) as answer:
                return await answer.json() if answer.status == 200 else []
        except (aiohttp.ClientError, OSError, TimeoutError):
            return []
