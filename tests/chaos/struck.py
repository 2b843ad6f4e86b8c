"""Any service as it is, except that it dies, stops or waits at a chosen gap of an event's way through it, or
reaches Kafka through proxies. A module of its own: a fork imports it without the tests.

The gaps of a consumer group, in the order of one event: ``consumed`` (read, the handler not called yet),
``handled`` (the handler's events are not published yet), ``published`` (acknowledged, the offset not
committed yet), ``committed``.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import signal
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiokafka import conn
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime import concurrent_jobs, consuming, subscriptions
from tunewheel_runtime.consuming import Consumption
from tunewheel_runtime.process import run
from tunewheel_runtime.publishing import Publisher

GAPS = ("consumed", "handled", "published", "committed")
_handled: ContextVar[str] = ContextVar("handled", default="")
"""The topic of the event that the running task handles."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a service is struck: when it handles the first event of ``topic`` after its start."""

    topic: str
    point: str
    told: Path
    """A file to which the service appends where it was struck. A handler that publishes nothing is struck at
    ``published`` where it would have been at ``handled``."""
    act: Literal["die", "hold", "stop"] = "die"
    """``hold``: wait until ``told`` is removed. ``stop``: SIGSTOP, with the events of ``handled`` on their
    way."""

    async def reached(self, topic: str, point: str) -> None:
        """Strike if this is the point, in a handler of ``topic``."""
        if topic == self.topic and point == self.point:
            await self.strike(point)

    async def passed_without(self, topic: str) -> None:
        """The handler of ``topic`` is done and has published what it had to."""
        if topic == self.topic and self.point in ("handled", "published"):
            await self.strike("published")

    async def strike(self, point: str) -> None:
        if self.act != "die" and _struck:
            return
        _struck.append(point)
        with self.told.open("a") as file:
            file.write(f"{point}\n")
        if self.act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.act == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        while self.act == "hold" and self.told.exists():
            await asyncio.sleep(0.01)


_struck: list[str] = []
"""Where this process was struck: once is enough."""


def serve(
    package: str,
    environment: Mapping[str, str],
    log: Path,
    gap: Gap | None = None,
    ports: Mapping[int, int] | None = None,
    folder: Path = Path(),
) -> None:
    """Be the service ``package``, in ``folder``. ``ports``: the proxy's by the broker's."""
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if gap is not None:
        _arm(gap)
    if ports is not None:
        _go_through(ports)
    settings = importlib.import_module(f"{package}.settings").Settings()
    run(importlib.import_module(f"{package}.main").make_app(settings))


def _arm(gap: Gap) -> None:
    for name in ("consume_one", "consume_each", "consume_batch"):
        setattr(Consumption, name, _dying(getattr(Consumption, name), gap))
    subscriptions.consume_job = _dying_job(subscriptions.consume_job, gap)
    send = Publisher.send

    async def sending(self: Publisher, records: Any) -> None:
        if gap.act != "stop":
            await gap.reached(_handled.get(), "handled")
            await send(self, records)
            return
        under_way = asyncio.create_task(send(self, records))
        for _ in range(50):  # The bytes go to the broker; its answer is not read.
            await asyncio.sleep(0)
        await gap.reached(_handled.get(), "handled")
        await under_way

    Publisher.send = sending
    for module in (consuming, concurrent_jobs):
        module.commit_past = _dying_commit(module.commit_past, gap)


def _dying(consume: Callable[..., Any], gap: Gap) -> Callable[..., Any]:
    @functools.wraps(consume)
    async def consuming_(self: Consumption, spec: TopicSpec, *more: Any) -> None:
        await gap.reached(spec.name, "consumed")
        token = _handled.set(spec.name)
        try:
            await consume(self, spec, *more)
        finally:
            _handled.reset(token)
        await gap.passed_without(spec.name)

    return consuming_


def _dying_job(consume: Callable[..., Any], gap: Gap) -> Callable[..., Any]:
    async def consuming_job(consumption: Any, spec: TopicSpec, *more: Any) -> None:
        *before, settle, turn = more

        async def settling(record: Any, consumer: Any) -> None:
            await gap.passed_without(spec.name)
            await settle(record, consumer)

        await gap.reached(spec.name, "consumed")
        _handled.set(spec.name)
        await consume(consumption, spec, *before, settling, turn)

    return consuming_job


def _dying_commit(commit: Callable[..., Any], gap: Gap) -> Callable[..., Any]:
    async def committing(consumer: Any, last: Mapping[Any, int]) -> bool:
        whole = await commit(consumer, last)
        for partition in last:
            await gap.reached(partition.topic, "committed")
        return whole

    return committing


def _go_through(ports: Mapping[int, int]) -> None:
    connect = conn.AIOKafkaConnection.connect

    async def connect_to_proxy(connection: Any) -> Any:
        connection._port = ports.get(connection._port, connection._port)
        return await connect(connection)

    conn.AIOKafkaConnection.connect = connect_to_proxy
