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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal

from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_testing.waiting import until

from .fault_table import RESULTS
from .sides import PATIENCE_SECONDS, Pair, Side
from .stalls import Proxy
from .struck import GAPS, Gap

OUTAGE_SECONDS = 60.0
SLOW_MS = 200
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
async def struck(pair: Pair, act: Literal["hold", "stop"], point: str = "handled") -> AsyncIterator[None]:
    """Give the hard side all there is at once, and yield when it is struck at ``point`` of its first event; a
    service whose handlers publish nothing, when it has read that event."""
    side = pair.hard
    for topic in side.given.groups:
        await side.publish(side.given.lines[topic])
    side.start(Gap("", "consumed" if side.service in SILENT else point, side.told, act))
    await until(side.told.exists, f"{side.service} struck", patience=PATIENCE_SECONDS)
    yield
    side.told.unlink(missing_ok=True)


async def outage(
    pair: Pair, begin: Callable[[], object], end: Callable[[], object], *, point: str = "handled"
) -> dict[str, Any]:
    """Take something away from the running service for ``OUTAGE_SECONDS``; return what that came to."""
    await pair.undisturbed()
    async with struck(pair, "hold", point):
        begin()
    over = time.monotonic() + OUTAGE_SECONDS
    slowest = await slowest_health(pair.hard, lambda: time.monotonic() < over)
    ended = not pair.hard.is_alive
    end()
    healed = time.monotonic()
    if not pair.hard.is_alive:
        pair.hard.start()
    await pair.hard.until_ready()
    figures = await pair.same()
    return {"ended_itself": ended, "slowest_health_seconds": slowest,
            "same_again_after_seconds": round(time.monotonic() - healed), **figures}  # fmt: skip


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
        return await outage(pair, broker.kill, broker.start)


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
        async with struck(pair, "stop"):
            first, began = pair.hard, time.monotonic()
            pair.hard = other = first.twin()
            try:
                other.start()
                await other.until_ready()
                await other.settled()
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
    preload = {"LD_PRELOAD": str(library), "SLOW_MS": str(SLOW_MS)}
    async with Pair.of(service, broker.bootstrap_servers, folder, preload=preload) as pair:
        side = pair.hard
        preload["SLOW_FOLDER"] = str(side.store)
        await pair.undisturbed()
        side.start()
        await side.until_ready()
        for topic in side.given.groups:
            await side.publish(side.given.lines[topic])
        settling = asyncio.create_task(side.settled())
        slowest = await slowest_health(side, lambda: not settling.done())
        await settling
        return {"slowest_health_seconds": slowest, **await pair.same()}


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

    def step(offset: str) -> None:
        clock.with_suffix(".new").write_text(offset)
        clock.with_suffix(".new").rename(clock)

    async with Pair.of(service, broker.bootstrap_servers, folder, preload=preload) as pair:
        side = pair.hard
        await pair.undisturbed()
        step("+0")
        side.start()
        await side.until_ready()
        for topic in side.given.groups:
            await side.publish(side.given.lines[topic])
            step("+1h")
            await side.settled()
            step("-1h")
        return {"steps": 2 * len(side.given.groups), **await pair.same()}


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
