"""A whole small log with its object store, kept as it was written and replayed by every later version.

A snapshot is a folder: ``log.jsonl.gz`` (a record of Kafka a line), ``store.tar.gz`` (the object store below
its root) and ``state.json`` (what the services made of the log).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from tunewheel_curate.records.table import RecordTable
from tunewheel_runtime.lag import read_lag
from tunewheel_testing.endpoint import Endpoint

LOG, STORE, STATE = "log.jsonl.gz", "store.tar.gz", "state.json"
NOT_KEPT = ("data_docs",)
"""Folders of the store that nothing reads again, and that are large."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record of the log; bytes are base64."""

    topic: str
    partition: int
    key: str | None
    value: str | None
    headers: list[tuple[str, str]]

    @classmethod
    def of(cls, record: Any) -> Self:
        headers = [(name, _text(value or b"")) for name, value in record.headers]
        return cls(record.topic, record.partition, _text(record.key), _text(record.value), headers)

    @property
    def name(self) -> str:
        """The event's id; a dead letter carries its event's, or else what was refused is its name."""
        return self._header("ce_id") or self.value or ""

    @property
    def source(self) -> str:
        return self._header("ce_source")

    def _header(self, wanted: str) -> str:
        return next((base64.b64decode(value).decode() for name, value in self.headers if name == wanted), "")


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


async def read_log(kafka: str) -> list[Line]:
    """Return every record of every topic but Kafka's own, each partition in its order."""
    # "earliest" instead of a seek to the beginning: aiokafka may answer the seek with the place that it was
    # looking up since the assignment, by default the end.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, max_partition_fetch_bytes=8 << 20, auto_offset_reset="earliest"
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await consumer.start()
    try:
        described = await admin.describe_topics(await admin.list_topics())
        partitions = [
            TopicPartition(topic["topic"], part["partition"])
            for topic in described
            for part in topic["partitions"]
            if not topic["topic"].startswith("__")
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        lines: list[Line] = []
        for partition in sorted(partitions):
            while await consumer.position(partition) < ends[partition]:
                fetched = await consumer.getmany(partition, timeout_ms=1000)
                lines += [Line.of(record) for record in fetched.get(partition, [])]
        return lines
    finally:
        await consumer.stop()
        await admin.close()


async def write_log(kafka: str, lines: Iterable[Line]) -> None:
    """Put ``lines`` on topics that exist, each in its partition and order."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=8 << 20, enable_idempotence=True)
    await producer.start()
    try:
        sent = [
            await producer.send(
                line.topic,
                _bytes(line.value),
                key=_bytes(line.key),
                partition=line.partition,
                headers=[(name, _bytes(value) or b"") for name, value in line.headers],
            )
            for line in lines
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def settled(kafka: str, *, patience: float = 900.0) -> None:
    """Wait until every consumer group has read all there is, three looks in a row."""
    async with asyncio.timeout(patience):
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(1)
            lags = await read_lag({"bootstrap_servers": kafka})
            quiet = quiet + 1 if not any(lag.behind for lag in lags if lag.hosts) else 0


def save(folder: Path, lines: Iterable[Line], store: Path, state: Mapping[str, Any]) -> None:
    """Write a snapshot: the log, the store and what the services made of them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
    (folder / LOG).write_bytes(gzip.compress(text.encode(), mtime=0))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=9) as archive:
        for path in sorted(store.rglob("*")):
            below = path.relative_to(store)
            if path.is_file() and not set(NOT_KEPT).intersection(below.parts):
                archive.add(path, str(below), recursive=False, filter=_anonymous)
    (folder / STORE).write_bytes(packed.getvalue())
    (folder / STATE).write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def load_log(folder: Path) -> list[Line]:
    """Return a snapshot's log."""
    rows = map(json.loads, gzip.decompress((folder / LOG).read_bytes()).splitlines())
    return [Line(**row | {"headers": [tuple(pair) for pair in row["headers"]]}) for row in rows]


def load_state(folder: Path) -> dict[str, Any]:
    """Return what the services made of a snapshot's log when it was recorded."""
    return json.loads((folder / STATE).read_text())


def unpack_store(folder: Path, store: Path, *, without: Iterable[str] = ()) -> None:
    """Lay a snapshot's store out at ``store``, but not the top-level folders ``without``."""
    with tarfile.open(folder / STORE) as archive:
        for member in archive.getmembers():
            if member.name.split("/")[0] not in set(without):
                archive.extract(member, store, filter="data")


async def read_state(registry: Endpoint, store: Path, project: str) -> dict[str, Any]:
    """Return what ``registry`` and the record table in ``store`` hold."""
    async with aiohttp.ClientSession(registry.url, headers=registry.headers) as session:
        models = await _get(session, f"/v1/projects/{project}/models")
        desired = await _get(session, f"/v1/projects/{project}/desired")
    arrivals = RecordTable(str(store / "records")).arrivals().select("record_id").unique().sort("record_id")
    return {
        "models": [
            {name: model[name] for name in ("model_id", "kind", "stage", "run_id", "dataset_id")}
            | {"history": [[step["event_id"], step["stage"]] for step in model["history"]]}
            for model in models
        ],
        "desired": desired,
        "records": arrivals.get_column("record_id").to_list(),
    }


async def _get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        answer.raise_for_status()
        return await answer.json()
