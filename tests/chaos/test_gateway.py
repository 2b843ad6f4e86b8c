"""The gateway, killed with -9 under load and started again on the same port, with the broker and without:
nothing it answered is lost. And an engine of its pool, killed under load: nobody sees a failure before the
first token."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.topics import TOPICS, TopicSpec
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.engine_process import EngineProcess, tiny_adapter, tiny_base
from tunewheel_testing.reading import read_topics
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS, Bus, running, until
from ..integration.test_gateway import answered_by, client_of, desired, gateway
from ..integration.verdicts import stored_adapter
from .three_brokers import COUNT, ThreeBrokers, leaders

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("kills")]

CLIENTS = 8


@dataclass
class Load:
    """Clients that ask, and rate every answer they get. ``answered`` is in the order of the answers."""

    url: str
    project: str
    answered: list[str] = field(default_factory=list)
    rated: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    rates: bool = True
    """Whether clients rate what they get: without the broker that takes as long as a publish may."""
    stopping: bool = False
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def applied(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            self.clients = [asyncio.create_task(self._client(session)) for _ in range(CLIENTS)]
            yield
            self.stopping = True
            await asyncio.gather(*self.clients)

    async def goes_on(self, *, answers: int = 120) -> None:
        """Return once so many more were answered."""
        before = len(self.answered)

        def have_been_answered() -> bool:
            for client in self.clients:
                if client.done():
                    client.result()  # which says why it gave up
            return len(self.answered) > before + answers

        await until(have_been_answered)

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self.stopping:
            try:
                await self._ask_and_rate(session)
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)  # it is dead, or not there yet: a client tries again

    async def _ask_and_rate(self, session: aiohttp.ClientSession) -> None:
        body = {"model": self.project, "messages": [{"role": "user", "content": "hello"}]}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status == 503:
                await asyncio.sleep(0.02)
                return
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
        self.answered.append(answer["id"])
        self.models.add(answer["model"])
        if not self.rates:
            return
        feedback = {"completion_id": answer["id"], "rating": "up", "project": self.project}
        async with session.post(f"{self.url}/v1/feedback", json=feedback) as response:
            if response.status == 202:
                self.rated.add((await response.json())["feedback_id"])


DESCRIPTORS = 200
"""A gateway's limit of open files: less than the sockets that strangers open."""


def start(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        command = [sys.executable, "-m", "tunewheel_serve_gateway.main"]
        command = ["prlimit", f"--nofile={DESCRIPTORS}", *command]
        return subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream)


@contextmanager
def strangers(port: int) -> Iterator[None]:
    """Hold idle connections without a key, more than the gateway has descriptors for."""
    with ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        yield


@asynccontextmanager
async def asked(
    kafka: str, folder: Path, project: str
) -> AsyncIterator[tuple[Load, Callable[[], subprocess.Popen[bytes]]]]:
    """Yield clients of a gateway with one model, and a function that starts the gateway. At the end no answer
    of the gateway may be missing on the log, or wait on the gateway's disk."""
    adapter = await stored_adapter(ObjectStore((folder / "store").as_uri()), project, 1)
    port = free_port()
    load = Load(f"http://127.0.0.1:{port}", project)
    async with FakeEngine(SMOLLM2.name, answers_anything=True).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (adapter, 100)))
        environment = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
            "TUNEWHEEL_STORE_URL": (folder / "store").as_uri(),
            "TUNEWHEEL_CACHE_DIR": str(folder),
            "TUNEWHEEL_ENGINE_URL": engine,
            "TUNEWHEEL_HTTP_PORT": str(port),
            "TUNEWHEEL_PUBLISH_SECONDS": "2",
        }
        yield load, lambda: start(environment, folder / "gateway.log")
        await check(kafka, load)
    assert load.models == {adapter.model_id}
    assert not list((folder / "work" / "serve-gateway" / "completions").iterdir())


async def test_killed_twice_under_load_and_beset_by_strangers_it_comes_back_and_nothing_is_lost(
    broker_factory: Any, tmp_path: Path, project: str
):
    broker = await asyncio.to_thread(broker_factory)
    async with asked(broker.bootstrap_servers, tmp_path, project) as (load, next_process):
        process = next_process()
        port = int(load.url.rpartition(":")[2])
        try:
            async with load.applied():
                await load.goes_on()
                load.rates = False
                with ExitStack() as beset:
                    with silent(broker.process.pid):
                        await load.goes_on()
                        await asyncio.to_thread(beset.enter_context, strangers(port))
                    await load.goes_on()
                with silent(broker.process.pid):
                    await load.goes_on()
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait(PATIENCE_SECONDS)
                load.rates = True
                process = next_process()
                await load.goes_on()
                os.kill(process.pid, signal.SIGKILL)  # in the middle of publishing
                process.wait(PATIENCE_SECONDS)
                process = next_process()
                await load.goes_on()
        finally:
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)


async def test_a_leader_of_its_completions_that_is_killed_under_load_costs_none_of_them(
    tmp_path: Path, project: str
):
    """Of three brokers, two of which must have each record, each is killed once and started again."""
    topic = topics.INFERENCE_COMPLETED.name
    async with AsyncExitStack() as stack:
        brokers = ThreeBrokers(tmp_path)
        await asyncio.to_thread(stack.enter_context, brokers)
        options = {"bootstrap_servers": brokers.servers}
        own = [t for t in TOPICS if "serve-gateway" in (*t.producers, *t.consumers, *t.replayed_by)]
        await ensure_topics(options, wanted_topics(own))
        load, next_process = await stack.enter_async_context(asked(brokers.servers, tmp_path, project))
        process, moved = next_process(), 0
        try:
            async with load.applied():
                await load.goes_on()
                for number in range(1, COUNT + 1):
                    led = Counter((await leaders(options, [topic])).values())
                    await asyncio.to_thread(brokers.kill, number)
                    await load.goes_on()
                    await asyncio.to_thread(brokers.start, number)
                    await load.goes_on()
                    moved += led[number]
                    assert number not in (await leaders(options, [topic])).values()
        finally:
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)
    assert moved >= topics.INFERENCE_COMPLETED.partitions


@contextmanager
def silent(broker: int) -> Iterator[None]:
    """Let the broker's processes answer nobody meanwhile."""
    os.killpg(broker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(broker, signal.SIGCONT)


async def check(kafka: str, load: Load) -> None:
    completions: list[tuple[str, str]] = []
    ratings: list[tuple[str, str]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (set(load.answered) <= names(completions) and load.rated <= names(ratings)):
            completions = await everything(kafka, topics.INFERENCE_COMPLETED, "completion_id")
            ratings = await everything(kafka, topics.FEEDBACK_RECEIVED, "feedback_id")
    # What was on its way to the broker when the kill came may be there twice, as the same event.
    assert len(set(completions)) == len(names(completions))


def names(found: list[tuple[str, str]]) -> set[str]:
    return {name for name, _ in found}


async def everything(kafka: str, topic: TopicSpec, name: str) -> list[tuple[str, str]]:
    """Return field ``name`` and the event id of every event of ``topic`` that is there by now."""
    options = {"bootstrap_servers": kafka}
    return [(getattr(event.data, name), event.id) async for event in read_topics(options, (topic,))]


async def test_an_engine_killed_under_load_fails_nobody_before_the_first_token(
    kafka: str, tmp_path: Path, project: str
):
    base = tiny_base(tmp_path)
    adapter = await tiny_adapter(ObjectStore((tmp_path / "store").as_uri()), base, f"{project}-1", 1)
    engines = [
        EngineProcess(base, adapters=tmp_path / "adapters", log=tmp_path / f"engine-{n}.log")
        for n in range(2)
    ]
    for engine in engines:
        engine.start()
    try:
        await asyncio.gather(*(engine.answers() for engine in engines))
        urls = ",".join(engine.url for engine in engines)
        async with Bus(kafka) as bus, running(gateway(kafka, tmp_path, urls)) as service:
            await bus.publish(declared(project), desired(project, 1, (adapter, 100), base=base))
            async with client_of(service) as client:
                await answered_by(client, project, adapter.model_id)
            await asyncio.gather(*(engine.has(adapter.model_id) for engine in engines))
            asking = Asking(f"http://127.0.0.1:{service.doors.http_port}/v1/chat/completions", project)
            async with asking.going_on():
                await until(lambda: asking.begun > 16)
                engines[0].kill()
                begun = asking.begun
                await until(lambda: asking.begun > begun + 32)
                engines[0].start()
                await engines[0].has(adapter.model_id)  # as soon as it is back
            assert asking.refused == []
            assert asking.begun > asking.broken, "what had begun there may have broken off, and no more"
    finally:
        for engine in engines:
            engine.kill()


@dataclass
class Asking:
    """Clients that ask for whole and for streamed answers in turn."""

    url: str
    project: str
    begun: int = 0
    broken: int = 0
    """Streams that ended in an error after their first token."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    _stopping: bool = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            clients = [asyncio.create_task(self._client(session, stream=n % 2 == 0)) for n in range(CLIENTS)]
            yield
            self._stopping = True
            await asyncio.gather(*clients)

    async def _client(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": self.project, "messages": messages, "max_tokens": 12, "stream": stream}
        while not self._stopping:
            async with session.post(self.url, json=body) as response:
                text = await response.text()
                if response.status != 200:
                    self.refused.append((response.status, text))
                    return
            self.begun += 1
            self.broken += '"error"' in text
