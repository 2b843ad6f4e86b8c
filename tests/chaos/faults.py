"""One service under one fault, beside the same service without it: both must leave the same on the log and in
the store.

What comes in is the recorded log of two turns (``tests/frozen``), topic by topic, and an example of the
contracts for each consumed topic that this log does not have. Each side has a store of its own, and topics of
its own under a prefix.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiokafka import AIOKafkaProducer, TopicPartition
from tunewheel_contracts.event import new_event
from tunewheel_contracts.topics import TOPICS, TopicSpec
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import Cursor, read
from tunewheel_runtime.partitions import group_backlog
from tunewheel_testing.story import EXAMPLES
from tunewheel_testing.waiting import until

from ..frozen.snapshot import Line, load_log, unpack_store
from .fault_table import RESULTS
from .stalls import Proxy
from .struck import GAPS, Gap, serve

SNAPSHOT = Path(__file__).parents[1] / "frozen" / "2026-11"
PROJECT = "frozen"
ELSEWHERE = "elsewhere"
"""The project of events that a service only checks, because it publishes them itself."""
PACKAGES = {
    "ingest": "tunewheel_ingest",
    "curate": "tunewheel_curate",
    "train": "tunewheel_train",
    "eval": "tunewheel_eval",
    "registry": "tunewheel_registry",
    "serve-gateway": "tunewheel_serve_gateway",
    "monitor": "tunewheel_monitor",
    "index": "tunewheel_index",
}
MODULES = [f"{package}.main" for package in PACKAGES.values()]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(MODULES)
"""Processes of the services, forked from one that has their libraries. The service is made in the fork."""
PATIENCE_SECONDS = 600.0
OUTAGE_SECONDS = 60.0
SILENT = ("serve-gateway", "index")
"""Services whose handlers publish nothing themselves."""
QUICK = {
    "TUNEWHEEL_IDENTITY": "open",  # The recorded log is older than signatures.
    "TUNEWHEEL_RETRY_FIRST_DELAY_SECONDS": "0.1",
    "TUNEWHEEL_RETRY_MAX_DELAY_SECONDS": "2",
    "TUNEWHEEL_POLICY_SECONDS": "0.1",
    "TUNEWHEEL_BUILD_RETRY_SECONDS": "0",
    "TUNEWHEEL_EVAL_WAIT_SECONDS": "0",
    "TUNEWHEEL_CLOCK_SECONDS": "0.2",
    "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
    "TUNEWHEEL_TRAIN_DTYPE": "float32",
    "TUNEWHEEL_TRAIN_THREADS": "1",
    "TUNEWHEEL_EVAL_THREADS": "1",
    "TUNEWHEEL_UPSTREAM_DAYS": "-1",
    "TUNEWHEEL_RECORD_DAYS": "-1",
}
MAY_SAY_MORE = ("monitor",)
"""Services that score until they have told the end of a turn, which a process that dies early tells later."""
NOT_COMPARED = ("attempts", "caches", "data_docs", "records", "signatures")
"""Folders of the store whose files have random names, or that say how often something was tried."""


def groups_of(service: str, folder: Path) -> list[str]:
    """Return the topics of the service's consumer groups, in the order of the contracts. The group that
    elects the active process handles nothing."""
    package = PACKAGES[service]
    environment = QUICK | {"TUNEWHEEL_STORE_URL": folder.as_uri(), "TUNEWHEEL_CACHE_DIR": str(folder)}
    with changed(environment):
        settings = importlib.import_module(f"{package}.settings").Settings()
        app = importlib.import_module(f"{package}.main").make_app(settings)
    topics = {topic for group, topic in app.groups if not group.endswith(".active")}
    return [spec.name for spec in TOPICS if spec.name in topics]


@contextlib.contextmanager
def changed(environment: Mapping[str, str]) -> Any:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Input:
    """What a service finds on the log, by topic."""

    def __init__(self, service: str, groups: Sequence[str]) -> None:
        self.groups = groups
        self.specs = [t for t in TOPICS if service in (*t.producers, *t.consumers, *t.replayed_by)]
        self.made = [t for t in self.specs if service in t.producers]
        recorded: dict[str, list[Line]] = {}
        for line in load_log(SNAPSHOT):
            recorded.setdefault(line.topic, []).append(line)
        own = {t.name for t in self.made}
        self.lines: dict[str, list[Line]] = {}
        for spec in self.specs:
            if spec.name in own and spec.name not in groups:
                continue
            lines = [] if spec.producers == (service,) else recorded.get(spec.name, [])
            if spec.name in groups and not lines:
                lines = [self._example(spec, ELSEWHERE if spec.name in own else PROJECT)]
            self.lines[spec.name] = lines

    @property
    def context(self) -> list[Line]:
        """What the service replays and has no group for, and the declared project."""
        return [line for topic, lines in self.lines.items() if topic not in self.groups for line in lines]

    def _example(self, spec: TopicSpec, project: str) -> Line:
        file = min((EXAMPLES / spec.name / "valid").glob("*.json"))
        data = json.loads(file.read_text("utf-8")) | {"project": project}
        record = new_event(spec.event.model_validate(data), source="/test").to_kafka()
        headers = [(name, _text(value or b"")) for name, value in record.headers.items()]
        return Line(spec.name, 0, _text(record.key), _text(record.value), headers)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


@dataclass
class Side:
    """One service on topics and its own store."""

    service: str
    kafka: str
    prefix: str
    folder: Path
    given: Input
    settings: dict[str, str] = field(default_factory=dict)
    ports: Mapping[int, int] | None = None
    process: BaseProcess | None = None

    @cached_property
    def options(self) -> dict[str, Any]:
        return client_options(KafkaSettings(bootstrap_servers=self.kafka, topic_prefix=self.prefix))

    @cached_property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def told(self) -> Path:
        return self.folder / "told"

    async def prepare(self) -> None:
        """Make topics and store, and publish what the service only replays."""
        self.folder.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        self.http_port, self.health_port = free_port(), free_port()
        unpack_store(SNAPSHOT, self.store, without=("records", "caches"))
        await ensure_topics(self.options, wanted_topics(self.given.specs))
        await self.publish(self.given.context)

    async def publish(self, lines: Sequence[Line]) -> None:
        producer = AIOKafkaProducer(**self.options, max_request_size=8 << 20)
        await producer.start()
        try:
            for line in lines:
                headers = [(name, base64.b64decode(value)) for name, value in line.headers]
                key, value = (None if t is None else base64.b64decode(t) for t in (line.key, line.value))
                await producer.send(line.topic, value, key=key, headers=headers)
            await producer.flush()
        finally:
            await producer.stop()

    def start(self, gap: Gap | None = None) -> None:
        environment = QUICK | {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": self.kafka,
            "TUNEWHEEL_TOPIC_PREFIX": self.prefix,
            "TUNEWHEEL_STORE_URL": self.store.as_uri(),
            "TUNEWHEEL_CACHE_DIR": str(self.folder / "cache"),
            "TUNEWHEEL_INSTANCE": self.service,
            "TUNEWHEEL_HTTP_PORT": str(self.http_port),
            "TUNEWHEEL_HEALTH_PORT": str(self.health_port),
            "TMPDIR": str(self.folder / "tmp"),
            **self.settings,
        }
        arguments = (PACKAGES[self.service], environment, self.log, gap, self.ports)
        self.process = PROCESSES.Process(target=serve, args=arguments)
        self.process.start()

    def signal(self, number: int) -> None:
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def twin(self) -> Side:
        """Return another process of the same service on the same topics and store."""
        folder = self.folder / "twin"
        (folder / "tmp").mkdir(parents=True)
        settings = self.settings | {"TUNEWHEEL_INSTANCE": "twin"}
        made = replace(self, folder=folder, process=None, settings=settings)
        made.store, made.http_port, made.health_port = self.store, free_port(), free_port()
        return made

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    async def died(self) -> str:
        """Wait until the process has killed itself; return where."""
        assert self.process is not None
        await asyncio.to_thread(self.process.join, PATIENCE_SECONDS)
        assert self.process.exitcode == -signal.SIGKILL, (self.process.exitcode, self.tail())
        return self.told.read_text().split()[-1]

    async def ready(self) -> dict[str, Any]:
        """Return what ``/health/ready`` says; nothing while the process does not answer."""
        url = f"http://127.0.0.1:{self.health_port}/health/ready"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
                session.get(url) as answer,
            ):
                return await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}

    async def until_ready(self) -> float:
        """Return how many seconds it took."""
        began = time.monotonic()

        async def is_ready() -> bool:
            assert self.process is not None
            assert self.process.is_alive(), self.tail()
            return bool((await self.ready()).get("ready"))

        await until(is_ready, f"{self.service} ready", patience=PATIENCE_SECONDS)
        return time.monotonic() - began

    async def settled(self) -> None:
        """Wait until each group has handled all there is."""
        for topic in self.given.groups:
            await until(lambda t=topic: self._has_handled(t), f"{topic} handled", patience=PATIENCE_SECONDS)

    async def _has_handled(self, topic: str) -> bool:
        """Whether no record lies between what the group has committed and the end. Markers of transactions
        may: a group commits past records only."""
        assert self.is_alive, self.tail()
        group = f"{self.service}.{topic.replace('.', '-')}"
        backlog = await group_backlog(self.options, topic, group=group)
        ends = {TopicPartition(topic, n): end for n, end in backlog.ends.items() if backlog.kept[n] < end}
        if ends:
            async with Cursor(self.options, [topic]) as cursor:
                cursor.start_from({partition: backlog.kept[partition.partition] for partition in ends})
                async for _ in cursor.upto(ends, most=1):
                    return False
        return True

    async def names(self) -> Counter[tuple[str, str]]:
        """Return how often the log has what the service published and refused: topic, and event. Of a
        compacted topic only the newest event of each key counts: services read no other."""
        given = Counter(line.name for lines in self.given.lines.values() for line in lines)
        specs = {spec.name: spec for spec in self.given.made}
        letters = [spec.dead_letter for spec in self.given.specs if spec.dead_letter_exists]
        found, newest = Counter[tuple[str, str]](), dict[tuple[str, bytes], str]()
        async for records in read(self.options, [*specs, *letters]):
            for record in records:
                topic, headers = record.position.topic, record.headers
                name = headers.get("ce_id", b"").decode()
                if topic in letters:
                    name = f"{name} {headers['dlq_field'].decode()}"
                elif name in given:
                    continue
                elif "compact" in specs[topic].cleanup:
                    newest[topic, record.key or b""] = name or "tombstone"
                    continue
                found[topic, name] += 1
        return found + Counter((topic, f"{key!r} {name}") for (topic, key), name in newest.items())

    def files(self) -> set[str]:
        """Return the store's files."""
        found = (path.relative_to(self.store) for path in self.store.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] not in NOT_COMPARED}

    def rows(self) -> tuple[int, int]:
        """Return how many records curate's table has, and how many of them differ."""
        from tunewheel_curate.records.table import RecordTable

        if not (self.store / "records").exists():
            return 0, 0
        arrivals = RecordTable(str(self.store / "records")).arrivals()
        return arrivals.height, arrivals["record_id"].n_unique()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3_000:] if self.log.exists() else ""

    async def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.join, 60)


@dataclass
class Pair:
    """The service with the fault and without it."""

    calm: Side
    hard: Side

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, service: str, kafka: str, folder: Path, **hard: Any) -> AsyncIterator[Pair]:
        folder.mkdir(parents=True, exist_ok=True)
        given = Input(service, groups_of(service, folder))
        both = [
            Side(service, kafka, f"{service}.{name}.", folder / name, given, **more)
            for name, more in (("calm", {}), ("hard", hard))
        ]
        try:
            for side in both:
                await side.prepare()
            yield cls(*both)
        finally:
            for side in both:
                await side.close()

    async def undisturbed(self) -> None:
        """Let the calm side handle topic after topic; it goes on running."""
        self.calm.start()
        await self.calm.until_ready()
        for topic in self.calm.given.groups:
            await self.calm.publish(self.calm.given.lines[topic])
            await self.calm.settled()

    async def same(self) -> dict[str, Any]:
        """Wait until both sides have left the same; return figures about it."""
        await self.hard.settled()
        calm, hard = {}, {}

        async def equal() -> bool:
            calm.update(await self._left(self.calm))
            hard.update(await self._left(self.hard))
            if self.hard.service in MAY_SAY_MORE:
                return all(calm[part] <= hard[part] for part in calm)
            return calm == hard

        try:
            await until(equal, "the same names", patience=300)
        except AssertionError as error:
            for part in calm:
                lost, more = (sorted(map(str, a[part] - b[part])) for a, b in ((calm, hard), (hard, calm)))
                error.add_note(f"{part}: lost {lost[:5]}, only there {more[:5]}")
            error.add_note(self.hard.tail())
            raise
        counts = (await self.hard.names()).values()
        height, distinct = self.hard.rows()
        assert height == distinct, "a record counts twice"
        more = len(hard["events"] - calm["events"])
        return {"result": "nothing lost" if more else "same", "events": len(counts), "more": more,
                "repeated": sum(counts) - len(counts), "files": len(calm["files"])}  # fmt: skip

    async def _left(self, side: Side) -> dict[str, set[Any]]:
        return {"events": set(await side.names()), "files": side.files(), "rows": set(side.rows())}


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
    began, slowest = time.monotonic(), 0.0
    while time.monotonic() - began < OUTAGE_SECONDS:
        asked = time.monotonic()
        await pair.hard.ready()
        slowest = max(slowest, time.monotonic() - asked)
        await asyncio.sleep(1)
    ended = not pair.hard.is_alive
    end()
    healed = time.monotonic()
    if not pair.hard.is_alive:
        pair.hard.start()
    await pair.hard.until_ready()
    figures = await pair.same()
    return {"ended_itself": ended, "slowest_health_seconds": round(slowest, 2),
            "same_again_after_seconds": round(time.monotonic() - healed), **figures}  # fmt: skip


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
                figures = await pair.same()
                await asyncio.to_thread(first.process.join, 1)
                if first.is_alive:
                    await until(lambda: _answers(first), "the first process answers again")
                return {"stopped_seconds": round(stopped_for), "ended_itself": not first.is_alive, **figures}
            finally:
                await first.close()
                await other.close()


async def _answers(side: Side) -> bool:
    return bool(await side.ready()) or not side.is_alive


FAULTS: dict[str, Callable[[str, LocalKafka, Path], Coroutine[Any, Any, dict[str, Any]]]] = {
    "kill -9": kill_at_each_gap,
    "broker away": broker_away,
    "network cut": network_cut,
    "store away": store_away,
    "disk full": disk_full,
    "SIGSTOP": stopped,
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
