"""Sources on a real broker: a topic becomes events, deletes withdraw, and a killed ingest loses nothing."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tunewheel_contracts import topics
from tunewheel_runtime.service import Service
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, process, running, until

pytestmark = pytest.mark.integration
SCHEMA = {
    "type": "record", "name": "Case",
    "fields": [{"name": name, "type": "string"} for name in ("no", "text", "solution")],
}  # fmt: skip
MAPPING: dict[str, Any] = {
    "kind": "ticket", "trust": "expert",
    "map": {"ticket_id": "no", "body": "text", "answer": "solution"}, "set": {"validated_by": "desk"},
}  # fmt: skip


async def make_topic(kafka: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1)])
    finally:
        await admin.close()


@pytest.fixture
def registry() -> Iterator[str]:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/schemas/ids/7" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"schema": json.dumps(SCHEMA)}).encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


async def until_measured(service: Service, lines: set[str]) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(PATIENCE_SECONDS):
        while True:
            text = (await client.get(f"http://127.0.0.1:{service.doors.health_port}/metrics")).text
            if lines <= {sorted_labels(line) for line in text.splitlines()}:
                return
            await asyncio.sleep(0.5)


def sorted_labels(line: str) -> str:
    """Return a line of metrics with its labels by name, without those of the process."""
    name, _, rest = line.partition("{")
    labels, _, value = rest.rpartition("} ")
    kept = sorted(
        one for one in labels.split(",") if one.partition("=")[0] in ("group", "topic", "partition")
    )
    return f"{name}{{{','.join(kept)}}} {value.partition('.')[0]}"


def case(number: int) -> dict[str, str]:
    return {"no": f"C-{number}", "text": f"bell {number}", "solution": "Charge it."}


@pytest.mark.nightly("matrices")
async def test_rows_of_a_table_become_tickets_and_deleted_rows_withdraw_them(
    kafka: str, tmp_path: Path, project: str
) -> None:
    from tunewheel_ingest.main import make_app
    from tunewheel_ingest.settings import Settings

    topic = f"crm.{project}"
    await make_topic(kafka, topic)
    sources = [
        {"name": "crm", "topic": topic, "format": "debezium", **MAPPING},
        {"name": "other", "topic": "hr.salaries", **MAPPING},
        {"name": "own", "topic": "record.ingested", **MAPPING},
        {"name": "gone", "topic": f"{topic}.gone", **MAPPING},
    ]
    settings = Settings(
        bootstrap_servers=kafka,
        store_url=(tmp_path / "store").as_uri(),
        source_topics=f"{topic}*={project},record.*",
    )
    service = make_app(settings)
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project, sources=sources))
        for number in range(10):
            row = {"before": None, "after": case(number), "op": "c"}
            await bus.send(topic, f"{number}".encode(), json.dumps(row).encode(), {})
        wrong = json.dumps({"after": {"no": f"{project} C-x"}, "op": "u"}).encode()
        await bus.send(topic, b"x", wrong, {})
        await bus.send(
            topic, b"3", json.dumps({"before": {"no": "C-3"}, "after": None, "op": "d"}).encode(), {}
        )

        records = await bus.collect(topics.RECORD_INGESTED, 10, where=lambda e: e.project == project)
        assert {e.data.source_id for e in records} == {f"C-{n}" for n in range(10)}
        (withdrawn,) = await bus.collect(topics.DOCUMENT_WITHDRAWN, 1, where=lambda e: e.project == project)
        assert (withdrawn.data.document_id, withdrawn.data.kind) == ("C-3", "ticket")
        (letter,) = await bus.dead_letters("ticket.published", 1, about=project)
        assert (letter.source_topic, letter.field, letter.value) == (topic, "body", wrong)
        await until(
            lambda: f"{topic}.gone is not read: it does not exist" in str(service.health.state()["warnings"])
        )
        waiting = [
            f'{{group="ingest.source.{project}/crm",partition="{partition}",topic="{topic}"}} 0'
            for partition in (0, 1)
        ]
        await until_measured(service, {f"tunewheel_consumer_lag{of}" for of in waiting})
        warnings = str(service.health.state()["warnings"])
        assert "hr.salaries is not listed" in warnings
        assert "record.ingested is a topic of Tunewheel itself" in warnings


@pytest.mark.nightly("kills")
async def test_a_killed_ingest_loses_no_message_of_an_avro_topic(
    kafka: str, tmp_path: Path, project: str, registry: str
) -> None:
    topic, count = f"desk.{project}", 400
    await make_topic(kafka, topic)
    settings = {
        "TUNEWHEEL_IDENTITY": "open", "TUNEWHEEL_SOURCE_TOPICS": "desk.*",
        "TUNEWHEEL_SCHEMA_REGISTRY_URL": registry,
    }  # fmt: skip
    schema = fastavro.parse_schema(SCHEMA)
    async with Bus(kafka) as bus:
        await bus.publish(
            declared(project, sources=[{"name": "desk", "topic": topic, "format": "avro", **MAPPING}])
        )
        for number in range(count):
            out = io.BytesIO()
            fastavro.schemaless_writer(out, schema, case(number))
            await bus.send(topic, f"{number}".encode(), struct.pack(">bI", 0, 7) + out.getvalue(), {})
        found: set[str] = set()
        with process(
            "tunewheel_ingest.main", kafka, tmp_path / "store", tmp_path / "log", **settings
        ) as first:
            await bus.collect(topics.TICKET_PUBLISHED, 1, where=lambda e: e.project == project)
            first.kill()
            first.wait()
        with process("tunewheel_ingest.main", kafka, tmp_path / "store", tmp_path / "log", **settings):

            def keep(event: Any) -> bool:
                fits = event.project == project and event.data.source_id not in found
                found.update([event.data.source_id] if fits else [])
                return fits

            await bus.collect(topics.RECORD_INGESTED, count, where=keep)
        assert found == {f"C-{n}" for n in range(count)}
