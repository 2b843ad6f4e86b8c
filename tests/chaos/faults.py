"""The faults of the matrix: each is done to one service, which must leave what it leaves without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_testing.waiting import until

from .fault_table import RESULTS
from .inputs import MAIN
from .sides import PATIENCE_SECONDS, Pair, Side
from .stalls import Proxy
from .struck import GAPS, Gap
from .three_brokers import ThreeBrokers, leaders

OUTAGE_SECONDS = 60.0
SLOW_MS = 200
LEAST_SLOWED = 3
"""As many calls to the store must have been slow while the service had events, or the cell shows nothing."""
SILENT = ("serve-gateway", "index")
"""Services whose handlers publish nothing themselves."""


async def kill_at_each_gap(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Kill the service with -9 at each gap of each of its groups, one death after the other."""
    began = time.monotonic()
    async with Pair.of(service, broker.bootstrap_servers, folder) as pair:
        await pair.undisturbed()
        deaths = Counter[str]()
        for topic in pair.hard.given.groups:
            await pair.hard.publish(pair.hard.given.lines[topic])
            died = ""
            for point in GAPS:
                if point == died:  # Nothing was published: both gaps are one.
                    continue
                pair.hard.start(Gap(topic, point, pair.hard.told))
                died = await pair.hard.died()
                deaths[died] += 1
        pair.hard.start()
        await pair.hard.until_ready()
        figures = await pair.same()
    return {"groups": len(pair.hard.given.groups), "deaths": deaths.total(), **figures,
            "seconds": round(time.monotonic() - began)}  # fmt: skip


@contextlib.asynccontextmanager
async def struck(
    pair: Pair, act: Literal["hold", "stop"], point: str = "handled"
) -> AsyncIterator[Sequence[str]]:
    """Give the hard side its topics up to the main one, and yield when it is struck at ``point`` of the first
    event of that; a service whose handlers publish nothing, when it has read the event. What is yielded are
    the topics that are left to give."""
    side, main = pair.hard, MAIN[pair.hard.service]
    side.start(Gap(main, "consumed" if side.service in SILENT else point, side.told, act))
    await side.until_ready()
    number = side.given.groups.index(main)
    await side.give(side.given.groups[:number])
    await side.publish(side.given.lines[main])
    await until(side.told.exists, f"{side.service} struck", patience=PATIENCE_SECONDS)
    yield side.given.groups[number + 1 :]
    side.told.unlink(missing_ok=True)


async def outage(
    pair: Pair, begin: Callable[[], object], end: Callable[[], object], *, point: str = "handled"
) -> dict[str, Any]:
    """Take something away from the running service for ``OUTAGE_SECONDS``; return what that came to."""
    await pair.undisturbed()
    async with struck(pair, "hold", point) as left:
        begin()
    over = time.monotonic() + OUTAGE_SECONDS
    slowest = await slowest_health(pair.hard, lambda: time.monotonic() < over)
    ended = not pair.hard.is_alive
    end()
    healed = time.monotonic()
    if not pair.hard.is_alive:
        pair.hard.start()
    await pair.hard.until_ready()
    await pair.hard.settled()
    whole = round(time.monotonic() - healed)
    await pair.hard.give(left)
    return {"ended_itself": ended, "slowest_health_seconds": slowest,
            "whole_again_after_seconds": whole, **await pair.same()}  # fmt: skip


async def slowest_health(side: Side, goes_on: Callable[[], bool]) -> float:
    """Ask for the service's health as long as ``goes_on``; return the slowest answer's seconds."""
    slowest = 0.0
    while goes_on():
        asked = time.monotonic()
        await side.ready()
        slowest = max(slowest, time.monotonic() - asked)
        await asyncio.sleep(1)
    return round(slowest, 2)


async def broker_away(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """The broker is killed with -9, and started again on its data."""
    async with Pair.of(service, broker.bootstrap_servers, folder) as pair:
        return await outage(pair, broker.kill, partial(broker.start, patience=PATIENCE_SECONDS))


async def leader_change(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Of three brokers, the one that leads the partition of the event about to be published is killed with
    -9, and started again on its data."""
    brokers = ThreeBrokers(folder / "brokers")
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, brokers)
        pair = await stack.enter_async_context(Pair.of(service, brokers.servers, folder))
        side, main = pair.hard, MAIN[service]
        names = [spec.name for spec in side.given.specs]
        before = await leaders(side.options, names)
        killed = before[main, side.given.lines[main][0].partition]
        figures = await outage(pair, partial(brokers.kill, killed), partial(brokers.start, killed))
        after = await leaders(side.options, names)
        moved = sum(after[partition] != leader for partition, leader in before.items())
        return {"moved": moved, **shown(moved > 0, figures)}


async def network_cut(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Between the service and the broker nothing passes, and no connection ends."""
    proxy = await Proxy.before(broker.bootstrap_servers)
    try:
        async with Pair.of(service, broker.bootstrap_servers, folder, ports=proxy.ports) as pair:
            return await outage(pair, proxy.cut, proxy.heal)
    finally:
        await proxy.close()


async def store_away(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """In place of the store's folder there is a file, as where a volume is not mounted."""
    async with Pair.of(service, broker.bootstrap_servers, folder) as pair:
        store, aside = pair.hard.store, pair.hard.folder / "aside"

        def begin() -> None:
            store.rename(aside)
            store.touch()

        def end() -> None:
            store.unlink()
            aside.rename(store)

        return await outage(pair, begin, end, point="consumed")


async def disk_full(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """The store's file system has no byte left."""
    async with Pair.of(service, broker.bootstrap_servers, folder) as pair:
        store, filler = pair.hard.store, pair.hard.folder / "store" / "filler"
        with mounted(store):
            return await outage(pair, lambda: fill(filler), filler.unlink, point="consumed")


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


async def stopped(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """The process stops (SIGSTOP) with its first events on their way. Another one takes over and handles all;
    then the first goes on."""
    async with Pair.of(service, broker.bootstrap_servers, folder) as pair:
        await pair.undisturbed()
        async with struck(pair, "stop") as left:
            first, began = pair.hard, time.monotonic()
            pair.hard = other = first.twin()
            try:
                other.start()
                await other.until_ready()
                await other.settled()
                await other.give(left)
                stopped_for = time.monotonic() - began
                first.signal(signal.SIGCONT)
                await asyncio.to_thread(first.process.join, 1)
                if first.is_alive:
                    await until(lambda: _answers(first), "the first process answers again")
                if not (ended := not first.is_alive):
                    first.signal(signal.SIGTERM)  # What it had on its way is done when it is over.
                    await asyncio.to_thread(first.process.join, PATIENCE_SECONDS)
                return {"stopped_seconds": round(stopped_for), "ended_itself": ended, **await pair.same()}
            finally:
                await first.close()
                await other.close()


async def slow_store(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Each call that opens, renames, links, removes or looks at a file of the store takes ``SLOW_MS`` longer,
    in the service's own workers too."""
    library = folder / "slow.so"
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("slow.c")
    compiling = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    await asyncio.to_thread(subprocess.run, compiling, check=True)
    calls = folder / "calls"
    calls.touch()
    preload = {"LD_PRELOAD": str(library), "SLOW_MS": str(SLOW_MS), "SLOW_CALLS": str(calls)}
    async with Pair.of(service, broker.bootstrap_servers, folder, preload=preload) as pair:
        side = pair.hard
        preload["SLOW_FOLDER"] = str(side.store)
        await pair.undisturbed()
        side.start()
        await side.until_ready()
        before = calls.stat().st_size
        giving = asyncio.create_task(side.give(side.given.groups))
        slowest = await slowest_health(side, lambda: not giving.done())
        await giving
        figures = await pair.same()
        slowed = calls.stat().st_size - before
        return {"slowest_health_seconds": slowest, "slowed": slowed, **shown(slowed >= LEAST_SLOWED, figures)}


async def clock_steps(service: str, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """The clock of the service's processes steps while they run: to an hour ahead with the events of each
    topic on their way, and to an hour behind before those of the next."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is not here: apt-get install faketime"
    clock = folder / "clock"
    preload = {
        "LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip

    def step(hours: int) -> None:
        clock.with_suffix(".new").write_text(f"{hours:+}h")
        clock.with_suffix(".new").rename(clock)

    async with Pair.of(service, broker.bootstrap_servers, folder, preload=preload) as pair:
        side = pair.hard
        await pair.undisturbed()
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
        figures = await pair.same()
        return {"steps": len(seen), **shown(all(seen), figures)}


async def is_ahead(side: Side, *, hours: int) -> bool:
    """Return whether the clock of the service, by its answers, comes to be so many hours ahead."""

    async def is_so() -> bool:
        return round(await side.clock() / 3600) == hours

    with contextlib.suppress(AssertionError):
        await until(is_so, "another clock", patience=60)
        return True
    return False


def shown(took_hold: bool, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a cell; nothing is told by one whose fault did not show in the service."""
    return figures if took_hold else figures | {"result": "not shown"}


async def _answers(side: Side) -> bool:
    return bool(await side.ready()) or not side.is_alive


FAULTS: dict[str, Callable[[str, LocalKafka, Path], Coroutine[Any, Any, dict[str, Any]]]] = {
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


def run(service: str, fault: str, broker: LocalKafka, folder: Path) -> None:
    """Run one cell of the matrix and write its figures. Raises what went wrong."""
    figures: dict[str, Any] = {"result": "failed"}
    try:
        figures = asyncio.run(FAULTS[fault](service, broker, folder))
    finally:
        results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        results.setdefault(fault, {})[service] = figures
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
