"""What clients see when an engine or a gateway dies: 3 gateways before 2 engines on a tiny model, one broker.

Requests come at a given rate, whatever became of those before (an open loop), half of them streamed. Each
goes to one gateway after the other, as a balancer would send it. Four parts:

engine      an engine is killed with -9 and started again. Clients do not retry. Failures before the first
token (goal: 0), streams that broke off later, and seconds from the engine's return until it has every adapter
(goal: at most 5). gateway     a gateway is killed with -9 and started again. Clients try the next gateway, at
most twice, as the official clients do. Failures that they see (goal: 0). champion    production moves to a
model that no engine can load, and each gateway is killed and started again. Answers of status 503 from a
gateway that says it is ready (goal: 0). stop        an engine is stopped with SIGSTOP; seconds from the
publication of a desired state of the base alone until each gateway's route is the base (goal: at most 1).

All share this machine's processors. ``--rate`` and ``--seconds`` (per part) make a small run of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
from report import write_report
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.engine_process import EngineProcess, tiny_adapter, tiny_base
from tunewheel_testing.sender import publish_events

PROJECT = "bench"
GATEWAYS, ENGINES, ADAPTERS, RETRIES = 3, 2, 4, 2
BODY = {"model": PROJECT, "messages": [{"role": "user", "content": "My charger blinks."}], "max_tokens": 8}


class Gateway:
    """One gateway process, which can be killed and started again on its port."""

    def __init__(self, root: Path, number: int, servers: str, engines: str) -> None:
        port, self._health = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = root / f"gateway-{number}.log"
        self._environment = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
            "TUNEWHEEL_STORE_URL": (root / "store").as_uri(),
            "TUNEWHEEL_CACHE_DIR": str(root),
            "TUNEWHEEL_WORK_DIR": str(root / f"work-{number}"),
            "TUNEWHEEL_ENGINE_URL": engines,
            "TUNEWHEEL_HTTP_PORT": str(port),
            "TUNEWHEEL_HEALTH_PORT": str(self._health),
            "TUNEWHEEL_IDENTITY": "open",
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "tunewheel_serve_gateway.main"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    async def is_ready(self, session: aiohttp.ClientSession) -> None:
        async def ready() -> bool:
            async with session.get(f"http://127.0.0.1:{self._health}/health/ready") as response:
                return response.status == 200

        await until(ready)

    async def serves(self, session: aiohttp.ClientSession, model_id: str) -> None:
        """Return once production is ``model_id``."""

        async def routed() -> bool:
            async with session.get(f"{self.url}/v1/status") as response:
                routes = (await response.json())["projects"].get(PROJECT, {}).get("routes", [])
                return [r["model_id"] for r in routes if r["role"] == "production"] == [model_id]

        await until(routed)


@dataclass
class Seen:
    """What clients saw."""

    statuses: Counter[str] = field(default_factory=Counter[str])
    broke_off: int = 0
    seconds: list[float] = field(default_factory=list[float])

    def figures(self) -> dict[str, Any]:
        answered = self.statuses["200"]
        return {
            "requests": self.statuses.total(),
            "failed_before_the_first_token": self.statuses.total() - answered,
            "statuses": dict(self.statuses),
            "streams_broken_off": self.broke_off,
            "p50_ms": round(statistics.median(self.seconds) * 1000, 1) if self.seconds else None,
            "p99_ms": round(sorted(self.seconds)[int(len(self.seconds) * 0.99)] * 1000, 1)
            if self.seconds
            else None,
        }


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(300):
        while True:
            try:
                if await condition():
                    return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load(
    session: aiohttp.ClientSession, gateways: list[Gateway], *, rate: float, retries: int
) -> AsyncIterator[Seen]:
    """Send requests at ``rate`` per second while the block runs; yields what clients see."""
    seen, asked = Seen(), set[asyncio.Task[None]]()

    async def send() -> None:
        next_at = time.perf_counter()
        for number in range(1 << 30):
            first = number % len(gateways)
            turn = cycle(gateways[first:] + gateways[:first])  # a repeated request goes to another one
            task = asyncio.create_task(ask(session, turn, seen, stream=number % 2 == 0, retries=retries))
            asked.add(task)
            task.add_done_callback(asked.discard)
            next_at += 1 / rate
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))

    sending = asyncio.create_task(send())
    try:
        yield seen
    finally:
        sending.cancel()
        await asyncio.gather(sending, *asked, return_exceptions=True)


async def ask(
    session: aiohttp.ClientSession, turn: Iterator[Gateway], seen: Seen, *, stream: bool, retries: int
) -> None:
    started, status = time.perf_counter(), ""
    for left in range(retries, -1, -1):
        try:
            async with session.post(
                f"{next(turn).url}/v1/chat/completions", json=BODY | {"stream": stream}
            ) as response:
                status = str(response.status)
                if response.status == 200:
                    seen.broke_off += '"error"' in await text_of(response)
        except aiohttp.ClientError as error:
            status = type(error).__name__
        if status == "200" or left == 0:
            seen.statuses[status] += 1
            break
    if status == "200":
        seen.seconds.append(time.perf_counter() - started)


async def text_of(response: aiohttp.ClientResponse) -> str:
    """Return the whole answer, or an error in its place where it broke off after its beginning."""
    try:
        return await response.text()
    except aiohttp.ClientPayloadError:
        return '"error"'


def desired(base: BaseModelRef, generation: int, champion: AdapterRef | None, *stand_ins: AdapterRef) -> Any:
    routes = [] if champion is None else [route(champion)]
    data = ServingDesired(
        project=PROJECT,
        generation=generation,
        base=base,
        system_prompt="Answer.",
        desired=DesiredRoutes(routes=tuple(routes)),
        stand_ins=tuple(map(route, stand_ins)),
    )
    return new_event(data, source="/bench")


def route(adapter: AdapterRef) -> Route:
    return Route(model_id=adapter.model_id, role=RouteRole.PRODUCTION, percent=100, adapter=adapter)


def declared(project: str, base: BaseModelRef) -> Any:
    spec = ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": base.name,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
        }
    )
    return new_event(ProjectDeclared(project=project, spec=spec), source="/bench")


@dataclass
class Bench:
    """Everything that runs, and how it is asked."""

    options: dict[str, Any]
    base: BaseModelRef
    adapters: list[AdapterRef]
    engines: list[EngineProcess]
    gateways: list[Gateway]
    session: aiohttp.ClientSession
    rate: float
    seconds: float

    async def engine_killed(self) -> dict[str, Any]:
        names = [adapter.model_id for adapter in self.adapters]
        async with load(self.session, self.gateways, rate=self.rate, retries=0) as seen:
            await asyncio.sleep(self.seconds / 3)
            self.engines[0].kill()
            await asyncio.sleep(self.seconds / 3)
            self.engines[0].start()
            await self.engines[0].answers()
            returned = time.perf_counter()
            await self.engines[0].has(*names)
            whole = time.perf_counter() - returned
            await asyncio.sleep(self.seconds / 3)
        return seen.figures() | {"seconds_until_every_adapter_is_back": round(whole, 2)}

    async def gateway_killed(self) -> dict[str, Any]:
        async with load(self.session, self.gateways, rate=self.rate, retries=RETRIES) as seen:
            await asyncio.sleep(self.seconds / 3)
            self.gateways[0].kill()
            await asyncio.sleep(self.seconds / 3)
            self.gateways[0].start()
            await self.gateways[0].is_ready(self.session)
            await asyncio.sleep(self.seconds / 3)
        return seen.figures()

    async def champion_unloadable(self, unloadable: AdapterRef) -> dict[str, Any]:
        event = desired(self.base, 2, unloadable, self.adapters[0])
        await publish_events(self.options, event)
        total = Seen()
        for gateway in self.gateways:
            gateway.kill()
            gateway.start()
            await gateway.is_ready(self.session)
            async with load(self.session, [gateway], rate=self.rate, retries=0) as seen:
                await asyncio.sleep(self.seconds / 3)
            total.statuses += seen.statuses
            total.seconds += seen.seconds
        return total.figures() | {"answers_of_503": total.statuses["503"]}

    async def stopped(self) -> dict[str, Any]:
        os.kill(self.engines[0].process.pid, signal.SIGSTOP)
        try:
            published = time.perf_counter()
            await publish_events(self.options, desired(self.base, 3, None))
            taken: list[float] = []

            async def routed(gateway: Gateway) -> None:
                await gateway.serves(self.session, self.base.name)
                taken.append(time.perf_counter() - published)

            await asyncio.gather(*map(routed, self.gateways))
        finally:
            os.kill(self.engines[0].process.pid, signal.SIGCONT)
        return {"seconds_until_every_route_is_the_base": round(max(taken), 3)}


async def measure(root: Path, servers: str, *, rate: float, seconds: float) -> dict[str, dict[str, Any]]:
    options, store = {"bootstrap_servers": servers}, ObjectStore((root / "store").as_uri())
    base = tiny_base(root)
    adapters = [await tiny_adapter(store, base, f"{PROJECT}-{n}", n) for n in range(ADAPTERS)]
    elsewhere = BaseModelRef(name="no/such-base", revision="r")
    unloadable = await tiny_adapter(store, elsewhere, f"{PROJECT}-unloadable", 99)
    engines = [
        EngineProcess(base, adapters=root / "adapters", log=root / f"engine-{n}.log") for n in range(ENGINES)
    ]
    gateways = [
        Gateway(root, n, servers, ",".join(engine.url for engine in engines)) for n in range(GATEWAYS)
    ]
    others = [f"other-{n}" for n in range(1, ADAPTERS)]
    await publish_events(
        options,
        *(declared(project, base) for project in (PROJECT, *others)),
        desired(base, 1, adapters[0]),
        *(
            new_event(desired(base, 1, adapter).data.model_copy(update={"project": other}), source="/bench")
            for other, adapter in zip(others, adapters[1:], strict=True)
        ),
    )
    with running([*engines, *gateways]):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(engine.answers() for engine in engines))
            await asyncio.gather(*(gateway.is_ready(session) for gateway in gateways))
            names = [adapter.model_id for adapter in adapters]
            await asyncio.gather(*(engine.has(*names) for engine in engines))
            await asyncio.gather(*(gateway.serves(session, names[0]) for gateway in gateways))
            bench = Bench(options, base, adapters, engines, gateways, session, rate, seconds)
            return {
                "engine killed": await bench.engine_killed(),
                "gateway killed": await bench.gateway_killed(),
                "champion unloadable, gateways restarted": await bench.champion_unloadable(unloadable),
                "engine stopped": await bench.stopped(),
            }


@contextmanager
def running(processes: list[Any]) -> Iterator[None]:
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of requests, per part")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        broker = LocalKafka(root / "kafka", port=None).start()
        try:
            servers = broker.bootstrap_servers
            asyncio.run(ensure_topics({"bootstrap_servers": servers}))
            figures = asyncio.run(measure(root, servers, rate=given.rate, seconds=given.seconds))
        finally:
            broker.stop()
    write_report(
        "failover",
        packages=("aiohttp", "starlette", "uvicorn", "torch", "transformers"),
        contenders=figures,
        ratios={},
        gateways=GATEWAYS,
        engines=ENGINES,
        adapters=ADAPTERS,
        rate=given.rate,
        seconds_per_part=given.seconds,
    )


if __name__ == "__main__":
    main()
