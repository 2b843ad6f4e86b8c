"""Three ways to erase texts of ``record.ingested`` from Kafka, each tried on a real broker and a real store.

``sealed``: the texts are encrypted in the event (AES-256-GCM). Each customer, and each source, has a key in
the store; a record's key follows from both (HKDF), so destroying either erases the record. ``claimed``: the
texts are objects of the store, one for each record, and the event names theirs. ``deleted``: the event holds
the texts, and is deleted from the log once it is in the record table. ``today`` is how it was.

Each way is written, read into a record table, and read anew into a second one, as after the loss of the
first. A customer is erased before that. ``migrated``: an old log is sealed into a second topic, record by
record at the same offsets, and interrupted half-way.

    make bench NAME=texts_on_the_log ARGS="--records 10000"
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from corpus import require_data, tickets
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from report import write_report
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.identity import content_id
from tunewheel_curate.records.log import rows_of
from tunewheel_curate.records.table import RecordTable
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topics import Topic, ensure_topics
from tunewheel_runtime.kafka import PRODUCED
from tunewheel_runtime.log import read
from tunewheel_runtime.service import Delivery, Position
from tunewheel_runtime.store import ObjectStore

PROJECT, PARTITIONS, BATCH, AT_ONCE = "bench", 3, 500, 64
TEXTS = ("title", "input", "output", "rejected_output", "rated_output", "history", "sections")
PUT_DOLLARS, GET_DOLLARS = 5e-6, 4e-7
"""S3 Standard, us-east-1, for one request."""
Event = Envelope[RecordIngested]


@dataclass
class Store:
    """The object store; counts requests."""

    store: ObjectStore
    puts: int = 0
    gets: int = 0
    keys: dict[str, bytes] = field(default_factory=dict)

    async def first(self, path: str, data: bytes) -> bytes:
        if path not in self.keys:
            self.puts += 1
            self.keys[path] = await self.store.first(path, data)
        return self.keys[path]

    async def read(self, path: str, *, cached: bool) -> bytes | None:
        if cached and path in self.keys:
            return self.keys[path]
        self.gets += 1
        data = await self.store.read(path)
        if cached and data is not None:
            self.keys[path] = data
        return data

    async def put(self, path: str, data: bytes) -> None:
        self.puts += 1
        await self.store.put(path, data)


def keys_of(data: dict[str, Any]) -> list[str]:
    """Return the paths of the two keys of a record. Nobody reads a name from them."""
    names = (("group", data["group"]), ("source", data["kind"], data["source_id"]))
    return [f"keys/{data['project']}/{content_id('key', [*name])}" for name in names]


def cipher(keys: Sequence[bytes]) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, b"record.ingested").derive(b"".join(keys)))


async def seal(store: Store, data: dict[str, Any]) -> dict[str, Any]:
    keys = [await store.first(path, os.urandom(32)) for path in keys_of(data)]
    texts = {name: data.pop(name) for name in TEXTS if name in data}
    nonce = os.urandom(12)
    said = cipher(keys).encrypt(nonce, json.dumps(texts).encode(), data["record_id"].encode())
    return data | {"sealed": base64.b64encode(nonce + said).decode()}


async def unseal(store: Store, data: dict[str, Any]) -> dict[str, Any] | None:
    keys = [await store.read(path, cached=True) for path in keys_of(data)]
    if None in keys:
        return None
    said = base64.b64decode(data.pop("sealed"))
    texts = cipher([key or b"" for key in keys]).decrypt(said[:12], said[12:], data["record_id"].encode())
    return data | json.loads(texts)


async def claim(store: Store, data: dict[str, Any]) -> dict[str, Any]:
    texts = {name: data.pop(name) for name in TEXTS if name in data}
    path = f"texts/{data['project']}/{data['record_id']}.json"
    await store.put(path, json.dumps(texts).encode())
    return data | {"texts": path}


async def unclaim(store: Store, data: dict[str, Any]) -> dict[str, Any] | None:
    texts = await store.read(data.pop("texts"), cached=False)
    return None if texts is None else data | json.loads(texts)


async def plain(_: Store, data: dict[str, Any]) -> dict[str, Any]:
    return data


Code = Callable[[Store, dict[str, Any]], Awaitable[dict[str, Any] | None]]
WAYS: dict[str, tuple[Code, Code]] = {
    "today": (plain, plain),
    "sealed": (seal, unseal),
    "claimed": (claim, unclaim),
    "deleted": (plain, plain),
}


def records(count: int) -> list[Event]:
    """Return records of public tickets; each customer has five."""
    events: list[Event] = []
    for number, row in enumerate(tickets(count)[0].iter_rows(named=True)):
        data = RecordIngested(
            project=PROJECT,
            record_id=content_id("rec", number),
            kind=RecordKind.TICKET,
            source_id=f"T-{number}",
            source_event_id=f"e-{number}",
            input=row["input"],
            output=row["output"],
            group=f"customer-{number // 5}",
        )
        events.append(new_event(data, source="/bench", time=datetime(2026, 7, 1, tzinfo=UTC)))
    return events


async def each(code: Code, store: Store, items: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Apply ``code``, ``AT_ONCE`` items at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: dict[str, Any]) -> dict[str, Any] | None:
        async with room:
            return await code(store, item)

    return await asyncio.gather(*map(one, items))


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


class Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}


async def write(servers: str, topic: str, events: Sequence[Event], code: Code, store: Store) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, **PRODUCED) as producer:
        for batch in chunks(events):
            datas = [json.loads(event.to_kafka().value) for event in batch]
            coded = await each(code, store, datas)
            sent = [
                await producer.send(
                    topic, json.dumps(data).encode(), key=event.data.record_id.encode(),
                    headers=[*event.to_kafka().headers.items()],
                )
                for event, data in zip(batch, coded, strict=True)
            ]  # fmt: skip
            await asyncio.gather(*sent)


async def fill(servers: str, topic: str, code: Code, store: Store, folder: Path) -> RecordTable:
    """Read the whole topic into a new record table. A record whose key or text is gone is left out."""
    table = RecordTable(str(folder))
    async for found in read({"bootstrap_servers": servers}, [topic]):
        for batch in chunks(found):
            datas = await each(code, store, [json.loads(record.value or b"") for record in batch])
            deliveries = [
                Delivery(
                    Envelope.from_kafka(
                        RecordIngested, json.dumps(data).encode(), list(record.headers.items())
                    ),
                    Position("record.ingested", record.position.partition, record.position.offset),
                    record.headers,
                )
                for record, data in zip(batch, datas, strict=True)
                if data is not None
            ]
            await asyncio.to_thread(table.append, rows_of(deliveries))
    return table


async def delete(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, n): RecordsToDelete(-1) for n in range(PARTITIONS)})
    await admin.close()


def size_of(folder: Path) -> tuple[int, int]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return len(files), sum(file.stat().st_size for file in files)


async def forget(store: Store, way: str, events: Sequence[Event]) -> int:
    """Erase a customer's and another's single source; return how many records they have."""
    gone = [*events[:5], events[7]]
    if way == "sealed":
        paths = [keys_of(json.loads(events[0].to_kafka().value))[0]]
        paths += [keys_of(json.loads(events[7].to_kafka().value))[1]]
    else:
        paths = [f"texts/{PROJECT}/{event.data.record_id}.json" for event in gone]
    await store.store.delete(paths)
    store.keys.clear()
    return len(gone)


async def tried(servers: str, way: str, events: Sequence[Event], folder: Path) -> dict[str, Any]:
    code, decode = WAYS[way]
    store, topic = Store(ObjectStore((folder / "store").as_uri())), f"records.{way}"
    clock = Clock()
    await write(servers, topic, events, code, store)
    found: dict[str, Any] = {"write": clock.stop(), "puts": store.puts}
    clock = Clock()
    store.keys.clear()
    table = await fill(servers, topic, decode, store, folder / "table")
    found |= {"read": clock.stop(), "gets": store.gets}
    assert table.arrivals().height == len(events)
    objects, size = size_of(folder / "store")
    found |= {"objects": objects, "object_bytes": size, "dollars": dollars(objects, store.gets)}
    clock, gone = Clock(), 0
    if way == "deleted":
        await delete(servers, topic)
    elif way != "today":
        gone = await forget(store, way, events)
    found["forget"] = clock.stop()
    clock = Clock()
    anew = await fill(servers, topic, decode, store, folder / "anew")
    found |= {"rebuild": clock.stop(), "rebuilt": anew.arrivals().height}
    if way in ("sealed", "claimed"):
        assert found["rebuilt"] == len(events) - gone
    return found


def dollars(objects: int, gets: int) -> float:
    return round(objects * PUT_DOLLARS + gets * GET_DOLLARS, 4)


async def migrate(servers: str, events: Sequence[Event], folder: Path) -> dict[str, Any]:
    """Seal ``records.today`` into ``records.migrated``, in two runs, and delete the old records."""
    store, clock = Store(ObjectStore((folder / "store").as_uri())), Clock()
    await _migrate(servers, store, most=len(events) // 2)
    await _migrate(servers, store, most=None)
    found: dict[str, Any] = {"migrate": clock.stop(), "puts": store.puts}
    await delete(servers, "records.today")
    table = await fill(servers, "records.migrated", unseal, store, folder / "table")
    assert table.arrivals().height == len(events)
    assert table.arrivals()["record_id"].n_unique() == len(events)
    left = [one async for some in read({"bootstrap_servers": servers}, ["records.today"]) for one in some]
    return found | {"rebuilt": table.arrivals().height, "left": len(left)}


async def _migrate(servers: str, store: Store, *, most: int | None) -> None:
    """Continue at the ends of the new topic: offset n of the new is offset n of the old."""
    done = [0] * PARTITIONS
    async for found in read({"bootstrap_servers": servers}, ["records.migrated"]):
        for record in found:
            done[record.position.partition] = record.position.offset + 1
    count = 0
    async with AIOKafkaProducer(bootstrap_servers=servers, **PRODUCED) as producer:
        async for found in read({"bootstrap_servers": servers}, ["records.today"]):
            new = [record for record in found if record.position.offset >= done[record.position.partition]]
            for batch in chunks(new):
                if most is not None and count >= most:
                    return
                coded = await each(seal, store, [json.loads(record.value or b"") for record in batch])
                sent = [
                    await producer.send(
                        "records.migrated", json.dumps(data).encode(), key=record.key,
                        partition=record.position.partition, headers=[*record.headers.items()],
                    )
                    for record, data in zip(batch, coded, strict=True)
                ]  # fmt: skip
                places = await asyncio.gather(*sent)
                assert [place.offset for place in places] == [one.position.offset for one in batch]
                count += len(batch)


async def measure(count: int, servers: str, root: Path) -> dict[str, Any]:
    names = [f"records.{way}" for way in (*WAYS, "migrated")]
    await ensure_topics({"bootstrap_servers": servers}, [Topic(name, PARTITIONS, {}) for name in names])
    events = records(count)
    found = {way: await tried(servers, way, events, root / way) for way in WAYS}
    return found | {"migrated": await migrate(servers, events, root / "migrated")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    count = parser.parse_args().records
    require_data()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with LocalKafka(root / "kafka", port=None) as broker:
            found = asyncio.run(measure(count, broker.bootstrap_servers, root))
    write_report(
        "texts_on_the_log", packages=("cryptography", "obstore", "deltalake", "aiokafka"), contenders=found,
        ratios={way: found[way]["write"]["seconds"] / found["today"]["write"]["seconds"] for way in WAYS},
        records=count,
    )  # fmt: skip


if __name__ == "__main__":
    main()
