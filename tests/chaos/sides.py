"""A service on the recorded log, with a fault or without. It must leave the same on log and store.

Each has a store of its own, and topics of its own under a prefix.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer, TopicPartition
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import Cursor, read
from tunewheel_runtime.partitions import group_backlog
from tunewheel_testing.waiting import until

from ..frozen.snapshot import Line, unpack_store
from .inputs import LEAVES, NOT_GIVEN, PACKAGES, QUICK, SNAPSHOT, Input, changed, groups_of, place_base_model
from .struck import Gap, serve

MODULES = [f"{package}.main" for package in PACKAGES.values()]
PROCESSES = multiprocessing.get_context("forkserver")
"""Processes of the services, forked from one that has their libraries. The service is made in the fork."""
FRESH = multiprocessing.get_context("spawn")
"""Processes that load what ``LD_PRELOAD`` names."""
PATIENCE_SECONDS = 1_200.0
LOOK_SECONDS = 2.0
"""Before each look, which costs connections: the services share the processor with this process."""
CALM_SECONDS = 10.0
"""A side without a fault has left all when it has left nothing more for so long."""
MAY_SAY_MORE = ("monitor",)
"""Services that score until they have told the end of a turn, which a process that dies early tells later."""
NOT_COMPARED = ("attempts", "caches", "data_docs", "records", "signatures")
"""Folders of the store whose files have random names, or that say how often something was tried."""


def prefix_of(service: str) -> str:
    return f"{service}."


def options_of(service: str, kafka: str) -> dict[str, Any]:
    """Return the options of clients that see the service's topics under its prefix."""
    return client_options(KafkaSettings(bootstrap_servers=kafka, topic_prefix=prefix_of(service)))


def name_of(record: Undecoded) -> str:
    """Return an event's id; the hash of its bytes where the sender gave it none, as in some dead letters.
    Empty: it has neither."""
    of_bytes = hashlib.sha256(record.value).hexdigest() if record.value else ""
    return record.headers.get("ce_id", b"").decode() or of_bytes


@dataclass(frozen=True)
class Left:
    """What a service has left: the events on the log and how often each is there, files, and records."""

    events: Counter[tuple[str, str]]
    files: set[str]
    rows: tuple[int, int]

    def lacks(self, other: Left) -> list[str]:
        """Return what ``other`` has and this has not."""
        events, files = other.events.keys() - self.events.keys(), other.files - self.files
        rows = [other.rows] if other.rows != self.rows else []
        return [*map(str, sorted(events)), *sorted(files), *map(str, rows)]


@dataclass
class Side:
    """One service on topics and its own store."""

    service: str
    kafka: str
    folder: Path
    given: Input
    settings: dict[str, str] = field(default_factory=dict)
    ports: Mapping[int, int] | None = None
    preload: dict[str, str] | None = None
    """The environment of a process with a library before its own ones (``LD_PRELOAD``)."""
    process: BaseProcess | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, service: str, kafka: str, folder: Path) -> AsyncIterator[Side]:
        """Make topics and store, publish what the service only replays, and end its process afterwards."""
        (folder / "tmp").mkdir(parents=True)
        place_base_model(service, folder)
        side = cls(service, kafka, folder, Input(service, groups_of(service, folder)))
        side.http_port, side.health_port = free_port(), free_port()
        unpack_store(SNAPSHOT, side.store, without=("records", "caches", *NOT_GIVEN.get(service, ())))
        await ensure_topics(side.options, wanted_topics(side.given.specs))
        await side.publish(side.given.context)
        try:
            yield side
        finally:
            await side.close()

    @cached_property
    def options(self) -> dict[str, Any]:
        return options_of(self.service, self.kafka)

    @cached_property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def told(self) -> Path:
        return self.folder / "told"

    async def give(self, topics: Sequence[str]) -> None:
        """Publish topic after topic, each when the service has handled the one before: it may decide in the
        order in which events reach it."""
        for topic in topics:
            await self.publish(self.given.lines[topic])
            await self.settled()

    async def publish(self, lines: Sequence[Line]) -> None:
        producer = AIOKafkaProducer(**self.options, max_request_size=8 << 20, enable_idempotence=True)
        await producer.start()
        try:
            sent: list[Any] = []
            for line in lines:
                headers = [(name, base64.b64decode(value)) for name, value in line.headers]
                key, value = (None if t is None else base64.b64decode(t) for t in (line.key, line.value))
                sent.append(await producer.send(line.topic, value, key=key, headers=headers))
            await asyncio.gather(*sent)  # ``flush`` would be silent about a line that the log does not have
        finally:
            await producer.stop()

    def start(self, gap: Gap | None = None) -> None:
        environment = QUICK | {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": self.kafka,
            "TUNEWHEEL_TOPIC_PREFIX": prefix_of(self.service),
            "TUNEWHEEL_STORE_URL": self.store.as_uri(),
            "TUNEWHEEL_CACHE_DIR": str(self.folder / "cache"),
            "TUNEWHEEL_INSTANCE": self.service,
            "TUNEWHEEL_HTTP_PORT": str(self.http_port),
            "TUNEWHEEL_HEALTH_PORT": str(self.health_port),
            "TMPDIR": str(self.folder / "tmp"),
            **self.settings,
        }
        place = self.store.parent
        arguments = (PACKAGES[self.service], environment, self.log, gap, self.ports, place)
        PROCESSES.set_forkserver_preload(MODULES)  # There is one such process, and `stalls` names other ones.
        processes = PROCESSES if self.preload is None else FRESH
        self.process = processes.Process(target=serve, args=arguments)
        with changed(self.preload or {}):
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
        await until(lambda: not self.is_alive, f"{self.service} killed", patience=PATIENCE_SECONDS)
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

    async def clock(self) -> float:
        """Return by how many seconds the clock of the process is ahead."""
        url = f"http://127.0.0.1:{self.health_port}/health/live"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()

    async def until_ready(self) -> float:
        """Return how many seconds it took."""
        began = time.monotonic()

        async def is_ready() -> bool:
            await asyncio.sleep(LOOK_SECONDS)
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
        await asyncio.sleep(LOOK_SECONDS)
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
        compacted topic only the newest event of each key counts: services read no other. Why an event is
        refused may depend on which topic's events came first, so the reason does not count."""
        given = Counter(line.name for lines in self.given.lines.values() for line in lines)
        specs = {spec.name: spec for spec in self.given.made}
        letters = [spec.dead_letter for spec in self.given.specs if spec.dead_letter_exists]
        found, newest = Counter[tuple[str, str]](), dict[tuple[str, bytes], str]()
        async for records in read(self.options, [*specs, *letters]):
            for record in records:
                topic = record.position.topic
                name = name_of(record)
                if topic not in letters:
                    if name in given:
                        continue
                    if "compact" in specs[topic].cleanup:
                        newest[topic, record.key or b""] = name or "tombstone"
                        continue
                found[topic, name] += 1
        return found + Counter((topic, f"{key!r} {name}") for (topic, key), name in newest.items())

    def files(self) -> set[str]:
        """Return the store's files that are whole, and which of them are empty. The monitor's newest state is
        named by how often it was written. What else a file holds may differ: times, for example."""
        sizes = {
            str(p.relative_to(self.store)): p.stat().st_size for p in self.store.rglob("*") if p.is_file()
        }
        compared = {path for path in sizes if path.partition("/")[0] not in NOT_COMPARED}
        named = {
            f"{path}{'' if sizes[path] else ' (empty)'}" for path in compared - damaged(self.store, compared)
        }
        return {re.sub(r"^(monitor/.*/state/)\d+", r"\1", name) for name in named}

    def rows(self) -> tuple[int, int]:
        """Return how many records curate's table has, and how many of them differ."""
        from tunewheel_curate.records.table import RecordTable

        if not (self.store / "records").exists():
            return 0, 0
        arrivals = RecordTable(str(self.store / "records")).arrivals()
        return arrivals.height, arrivals["record_id"].n_unique()

    async def left(self) -> Left:
        """Return what the service has left until now."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(FileNotFoundError):  # deleted while it was looked at
                return Left(await self.names(), await asyncio.to_thread(self.files), self.rows())

    async def undisturbed(self) -> Left:
        """Give the service all there is; return what it leaves."""
        self.start()
        await self.until_ready()
        await self.give(self.given.groups)
        left = await self.left()

        async def is_all() -> bool:
            nonlocal left
            before = left
            await asyncio.sleep(CALM_SECONDS)
            left = await self.left()
            return len(left.events) >= LEAVES[self.service] and left == before

        await until(is_all, f"{LEAVES[self.service]} events of {self.service}", patience=PATIENCE_SECONDS)
        return left

    async def same(self, calm: Left) -> dict[str, Any]:
        """Wait until the service has left the same as ``calm``; return figures about it."""
        await self.settled()
        left = await self.left()

        async def is_same() -> bool:
            nonlocal left
            left = await self.left()
            return not (left.lacks(calm) or (self.service not in MAY_SAY_MORE and calm.lacks(left)))

        try:
            await until(is_same, "the same names", patience=PATIENCE_SECONDS)
        except AssertionError as error:
            error.add_note(f"lost {left.lacks(calm)[:5]}, only there {calm.lacks(left)[:5]}")
            error.add_note(self.tail())
            raise
        height, distinct = left.rows
        assert height == distinct, "a record counts twice"
        more = len(left.events.keys() - calm.events.keys())
        return {"result": "nothing lost" if more else "same", "events": len(left.events), "more": more,
                "repeated": left.events.total() - len(left.events), "files": len(calm.files)}  # fmt: skip

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3_000:] if self.log.exists() else ""

    async def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            await until(lambda: not self.is_alive, f"{self.service} killed")


def damaged(store: Path, paths: Collection[str]) -> set[str]:
    """Return which of ``paths`` are JSON that cannot be read, or differ from the hash by which a JSON file
    refers to them."""
    found = set[str]()
    for path in (path for path in paths if path.endswith(".json")):
        try:
            refs = list(references(json.loads((store / path).read_bytes())))
        except ValueError:
            found.add(path)
            continue
        for ref in (ref for ref in refs if ref["path"] in paths):
            if hashlib.sha256((store / ref["path"]).read_bytes()).hexdigest() != ref["sha256"]:
                found.add(ref["path"])
    return found


def references(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each ``ArtifactRef`` in JSON, at whatever depth."""
    if isinstance(value, dict):
        if value.keys() == ArtifactRef.model_fields.keys():
            yield value
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)
