"""The faults of the matrix: each is done to all services at once, and each must leave what it leaves without.

A fault is a context that has been done to a service, given all its topics, where it begins: there the service
is judged. It yields the figures of the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from aiokafka.admin import NewTopic
from tunewheel_contracts.topics import TOPICS
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topics import wanted_topics
from tunewheel_runtime.cluster import admin_client
from tunewheel_testing.waiting import until

from .fault_table import RESULTS
from .inputs import MAIN
from .sides import PATIENCE_SECONDS, Left, Side, options_of
from .stalls import Proxy
from .struck import GAPS, Gap
from .three_brokers import COUNT, ThreeBrokers, leaders

OUTAGE_SECONDS = 60.0
SLOW_MS = 200
LEAST_SLOWED = 3
"""As many calls to the store must have been slow while the service had events, or the cell shows nothing."""
SILENT = ("serve-gateway", "index")
"""Services whose handlers publish nothing themselves."""
KILLED = 1
"""The broker that is killed where there are three."""
Figures = dict[str, Any]


class Once:
    """Does something to what all services share, once each of them has asked for it or has failed."""

    def __init__(self, act: Callable[[], object], services: Sequence[str]) -> None:
        self.awaited = set(services)
        self._act = act
        self._acting: asyncio.Task[object] | None = None

    async def ask(self, service: str) -> None:
        self.awaited.discard(service)
        await until(lambda: not self.awaited, f"{self.awaited} ready", patience=PATIENCE_SECONDS)
        self._acting = self._acting or asyncio.create_task(asyncio.to_thread(self._act))
        await self._acting


@dataclass(frozen=True)
class Shared:
    """The brokers of all services."""

    servers: str
    go: Once
    """Kills the broker, or one of three, with -9."""
    come: Once
    """Starts the broker again on its data."""

    @classmethod
    @contextlib.contextmanager
    def by(cls, services: Sequence[str], folder: Path, *, three: bool) -> Iterator[Shared]:
        if three:
            with ThreeBrokers(folder) as brokers:
                kill, start = partial(brokers.kill, KILLED), partial(brokers.start, KILLED)
                yield cls(brokers.servers, Once(kill, services), Once(start, services))
            return
        broker = LocalKafka(folder, port=None).start(patience=PATIENCE_SECONDS)
        try:
            start = partial(broker.start, patience=PATIENCE_SECONDS)
            yield cls(broker.bootstrap_servers, Once(broker.kill, services), Once(start, services))
        finally:
            broker.kill()


@asynccontextmanager
async def kill_at_each_gap(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """Kill the service with -9 at each gap of each of its groups, one death after the other."""
    deaths = Counter[str]()
    for topic in side.given.groups:
        await side.publish(side.given.lines[topic])
        died = ""
        for point in GAPS:
            if point == died:  # Nothing was published: both gaps are one.
                continue
            side.start(Gap(topic, point, side.told))
            died = await side.died()
            deaths[died] += 1
    side.start()
    await side.until_ready()
    yield {"groups": len(side.given.groups), "deaths": deaths.total()}


@asynccontextmanager
async def struck(
    side: Side, act: Literal["hold", "stop"], point: str = "handled"
) -> AsyncIterator[Sequence[str]]:
    """Give a service its topics up to the main one, and yield when it is struck at ``point`` of the first
    event of that; a service whose handlers publish nothing, when it has read the event. What is yielded are
    the topics that are left to give."""
    main = MAIN[side.service]
    side.start(Gap(main, "consumed" if side.service in SILENT else point, side.told, act))
    await side.until_ready()
    number = side.given.groups.index(main)
    await side.give(side.given.groups[:number])
    await side.publish(side.given.lines[main])
    await until(side.told.exists, f"{side.service} struck", patience=PATIENCE_SECONDS)
    yield side.given.groups[number + 1 :]
    side.told.unlink(missing_ok=True)


async def outage(
    side: Side, begin: Callable[[], Any], end: Callable[[], Any], *, point: str = "handled"
) -> Figures:
    """Take something away from the running service for ``OUTAGE_SECONDS``; return what that came to."""
    async with struck(side, "hold", point) as left:
        await begin()
    over = time.monotonic() + OUTAGE_SECONDS
    slowest = await slowest_health(side, lambda: time.monotonic() < over)
    ended = not side.is_alive
    await end()
    healed = time.monotonic()
    if not side.is_alive:
        side.start()
    await side.until_ready()
    await side.settled()
    whole = round(time.monotonic() - healed)
    await side.give(left)
    return {"ended_itself": ended, "slowest_health_seconds": slowest, "whole_again_after_seconds": whole}


async def slowest_health(side: Side, goes_on: Callable[[], bool]) -> float:
    """Ask for the service's health as long as ``goes_on``; return the slowest answer's seconds."""
    slowest = 0.0
    while goes_on():
        asked = time.monotonic()
        await side.ready()
        slowest = max(slowest, time.monotonic() - asked)
        await asyncio.sleep(1)
    return round(slowest, 2)


@asynccontextmanager
async def broker_away(side: Side, shared: Shared) -> AsyncIterator[Figures]:
    """The broker is killed with -9, and started again on its data."""
    yield await outage(side, partial(shared.go.ask, side.service), partial(shared.come.ask, side.service))


@asynccontextmanager
async def leader_change(side: Side, shared: Shared) -> AsyncIterator[Figures]:
    """Of three brokers, the one that leads the partitions of the event about to be published is killed with
    -9, and started again on its data."""
    names, main = [spec.name for spec in side.given.specs], MAIN[side.service]
    before = await leaders(side.options, names)
    assert {leader for (name, _), leader in before.items() if name == main} == {KILLED}
    figures = await outage(side, partial(shared.go.ask, side.service), partial(shared.come.ask, side.service))
    after = await leaders(side.options, names)
    moved = sum(after[partition] != leader for partition, leader in before.items())
    yield {"moved": moved, **shown(moved > 0, figures)}


async def lead_main_topic(service: str, servers: str) -> None:
    """Make the service's main topic with the broker to kill as the leader of all its partitions."""
    topic, *_ = wanted_topics([spec for spec in TOPICS if spec.name == MAIN[service]])
    replicas = [KILLED, *(n for n in range(1, COUNT + 1) if n != KILLED)]
    placed = dict.fromkeys(range(topic.partitions), replicas)
    async with admin_client(options_of(service, servers)) as admin:
        await admin.create_topics([NewTopic(topic.name, -1, -1, placed, dict(topic.configs))])


@asynccontextmanager
async def network_cut(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """Between the service and the broker nothing passes, and no connection ends."""
    proxy = await Proxy.before(side.kafka)
    side.ports = proxy.ports
    try:
        yield await outage(side, at_once(proxy.cut), at_once(proxy.heal))
    finally:
        await side.close()
        await proxy.close()


def at_once(act: Callable[[], object]) -> Callable[[], Any]:
    async def acting() -> None:
        act()

    return acting


@asynccontextmanager
async def store_away(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """In place of the store's folder there is a file, as where a volume is not mounted."""
    store, aside = side.store, side.folder / "aside"

    def begin() -> None:
        store.rename(aside)
        store.touch()

    def end() -> None:
        store.unlink()
        aside.rename(store)

    yield await outage(side, at_once(begin), at_once(end), point="consumed")


@asynccontextmanager
async def disk_full(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """The store's file system has no byte left."""
    filler = side.store / "filler"
    with mounted(side.store):
        try:
            yield await outage(side, at_once(partial(fill, filler)), at_once(filler.unlink), point="consumed")
        finally:
            await side.close()


@contextlib.contextmanager
def mounted(store: Path) -> Iterator[None]:
    """Put the folder ``store`` on a file system of its own, of 64 MB. Only root may."""
    aside = store.with_name("aside")
    store.rename(aside)
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(store)], check=True)
    try:
        shutil.copytree(aside, store, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


def fill(filler: Path) -> None:
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"0" * 4096):
            pass


@asynccontextmanager
async def stopped(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """A process stops (SIGSTOP) with its first events on their way. Another one takes over and handles all;
    then the first goes on."""
    first = side.twin()
    try:
        async with struck(first, "stop") as left:
            began = time.monotonic()
            side.start()
            await side.until_ready()
            await side.settled()
            await side.give(left)
            stopped_for = time.monotonic() - began
            first.signal(signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                await until(lambda: not first.is_alive, "ended", patience=1)
            if first.is_alive:
                await until(lambda: _answers(first), "the first process answers again")
            if not (ended := not first.is_alive):
                first.signal(signal.SIGTERM)  # What it had on its way is done when it is over.
                await until(lambda: not first.is_alive, "the first process ended", patience=PATIENCE_SECONDS)
            yield {"stopped_seconds": round(stopped_for), "ended_itself": ended}
    finally:
        await first.close()


@asynccontextmanager
async def slow_store(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """Each call that opens, renames, links, removes or looks at a file of the store takes ``SLOW_MS`` longer,
    in the service's own workers too."""
    library, calls = side.folder / "slow.so", side.folder / "calls"
    source = Path(__file__).with_name("slow.c")
    compiling = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    await asyncio.to_thread(subprocess.run, compiling, check=True)
    calls.touch()
    side.preload = {
        "LD_PRELOAD": str(library), "SLOW_MS": str(SLOW_MS), "SLOW_CALLS": str(calls),
        "SLOW_FOLDER": str(side.store),
    }  # fmt: skip
    side.start()
    await side.until_ready()
    before = calls.stat().st_size
    giving = asyncio.create_task(side.give(side.given.groups))
    slowest = await slowest_health(side, lambda: not giving.done())
    await giving
    figures: Figures = {"slowest_health_seconds": slowest}
    yield figures
    figures["slowed"] = calls.stat().st_size - before
    figures |= shown(figures["slowed"] >= LEAST_SLOWED, {})


@asynccontextmanager
async def clock_steps(side: Side, _: Shared) -> AsyncIterator[Figures]:
    """The clock of the service's processes steps while they run: to an hour ahead with the events of each
    topic on their way, and to an hour behind before those of the next."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is not here: apt-get install faketime"
    clock = side.folder / "clock"
    side.preload = {
        "LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip

    def step(hours: int) -> None:
        clock.with_suffix(".new").write_text(f"{hours:+}h")
        clock.with_suffix(".new").rename(clock)

    step(0)
    side.start()
    await side.until_ready()
    seen = list[bool]()
    for topic in side.given.groups:
        await side.publish(side.given.lines[topic])
        step(1)
        await side.settled()
        seen.append(await is_ahead(side, hours=1))
        step(-1)
        seen.append(await is_ahead(side, hours=-1))
    yield {"steps": len(seen), **shown(all(seen), {})}


async def is_ahead(side: Side, *, hours: int) -> bool:
    """Return whether the clock of the service, by its answers, comes to be so many hours ahead."""

    async def is_so() -> bool:
        return round(await side.clock() / 3600) == hours

    with contextlib.suppress(AssertionError):
        await until(is_so, "another clock")
        return True
    return False


def shown(took_hold: bool, figures: Figures) -> Figures:
    """Return the figures of a cell; nothing is told by one whose fault did not show in the service."""
    return figures if took_hold else figures | {"result": "not shown"}


async def _answers(side: Side) -> bool:
    return bool(await side.ready()) or not side.is_alive


FAULTS: dict[str, Callable[[Side, Shared], AbstractAsyncContextManager[Figures]]] = {
    "kill -9": kill_at_each_gap,
    "broker away": broker_away,
    "network cut": network_cut,
    "store away": store_away,
    "disk full": disk_full,
    "SIGSTOP": stopped,
    "slow store": slow_store,
    "clock steps": clock_steps,
    "leader change": leader_change,
}


def undisturbed(services: Sequence[str], folder: Path) -> dict[str, Left | BaseException]:
    """Return what each service leaves without a fault, or why that is not known."""

    async def left(side: Side, _: Shared) -> Left:
        return await side.undisturbed()

    return asyncio.run(_all_at_once(services, folder, left))


def run(
    fault: str, services: Sequence[str], folder: Path, calm: Mapping[str, Left | BaseException]
) -> dict[str, Figures | BaseException]:
    """Do a fault to all services at once, compare what each leaves with what it left ``calm``, and write the
    figures of each when it ends. Return them, or what went wrong."""

    async def cell(side: Side, shared: Shared) -> Figures:
        figures: Figures = {"result": "failed"}
        try:
            if isinstance(left := calm[side.service], BaseException):
                raise left
            async with FAULTS[fault](side, shared) as of_fault:
                judged = await side.same(left)
            figures = judged | of_fault
        finally:
            _keep(fault, side.service, figures)
        return figures

    return asyncio.run(_all_at_once(services, folder, cell, three=fault == "leader change"))


async def _all_at_once(
    services: Sequence[str],
    folder: Path,
    work: Callable[[Side, Shared], Coroutine[Any, Any, Any]],
    *,
    three: bool = False,
) -> dict[str, Any]:
    """Prepare one service after the other, because that keeps the event loop busy, then ``work`` on all at
    once. Return what came of each, or its error."""
    with Shared.by(services, folder / "kafka", three=three) as shared:

        async def one(side: Side) -> Any:
            try:
                return await work(side, shared)
            except Exception as error:
                traceback.print_exception(error)
                return error
            finally:
                shared.go.awaited.discard(side.service)
                shared.come.awaited.discard(side.service)

        async with contextlib.AsyncExitStack() as stack:
            sides: list[Side] = []
            for service in services:
                if three:
                    await lead_main_topic(service, shared.servers)
                side = Side.of(service, shared.servers, folder / service)
                sides.append(await stack.enter_async_context(side))
            return dict(zip(services, await asyncio.gather(*map(one, sides)), strict=True))


def _keep(fault: str, service: str, figures: Figures) -> None:
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    results.setdefault(fault, {})[service] = figures
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
