"""Other systems become a version without a line of code, while ingest is killed again and again.

Two topics of other systems, a table by Debezium and one in Avro by a schema registry, are read by an ingest
that is killed (SIGKILL) ``KILLS`` times. Recorded payloads of Zendesk, Jira, ServiceNow, GitHub and
Confluence come by signed webhooks. Then curate builds a version. Reported: rows lost, rows sent on more than
once, examples of the version; and how many records each mapping takes per processor second.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import fastavro
import httpx
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.source_spec import BuiltIn, SourceSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.sources.envelopes import Message
from tunewheel_contracts.sources.mapping import mapped
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.webhooks import signed

ROWS, KILLS, SECRET = 1_000, 5, "shared"
PATIENCE_SECONDS = 600
PAYLOADS = Path(__file__).resolve().parents[2] / "contracts/tests/sources/payloads"
HOOKS = {
    "zendesk": "zendesk_event", "jira": "jira_event", "servicenow": "servicenow_table",
    "github": "github_comment", "confluence": "confluence_pages",
}  # fmt: skip
ROW = {"kind": "ticket", "trust": "expert", "set": {"validated_by": "desk"},
       "map": {"ticket_id": "no", "body": "question", "answer": "reply"}}  # fmt: skip
SCHEMA = {"type": "record", "name": "Case",
          "fields": [{"name": name, "type": "string"} for name in ("no", "question", "reply")]}  # fmt: skip
SYLLABLES = [first + last for first in "bcdfghjklmnprstvwxyz" for last in "aeiou"]


def sources() -> list[dict[str, Any]]:
    hooks = [{"name": name, "webhook": name, "use": name, "trust": "expert"} for name in HOOKS]
    return [
        {"name": "table", "topic": "crm.cases", "format": "debezium", **ROW},
        {"name": "avro", "topic": "desk.cases", "format": "avro", **ROW}, *hooks,
    ]  # fmt: skip


def spec() -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "bench", "base_model": "any/model", "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}], "sources": sources(),
            "dataset": {"build": {"min_new_records": 10**6, "quiet_seconds": 5}},
        }
    )  # fmt: skip


def row(kind: str, number: int) -> dict[str, str]:
    draw = random.Random(f"{kind} {number}")
    words = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(24)]
    return {
        "no": f"{kind}-{number}",
        "question": " ".join(words[:12]) + "?",
        "reply": " ".join(words[12:]) + ".",
    }


class Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"schema": json.dumps(SCHEMA)}).encode())

    def log_message(self, format: str, *args: Any) -> None: ...


async def fill(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic("crm.cases", 3, 1), NewTopic("desk.cases", 3, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True)
    await producer.start()
    declared = new_event(ProjectDeclared(project="bench", spec=spec()), source="/bench").to_kafka()
    head = list(declared.headers.items())
    for topic in ("crm.cases", "desk.cases"):
        while not await producer.partitions_for(topic):  # a topic that was just made has no leader yet
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    await producer.send_and_wait(declared.topic, declared.value, key=declared.key, headers=head)
    schema = fastavro.parse_schema(SCHEMA)
    sent: list[Any] = []
    for number in range(ROWS):
        out, key = io.BytesIO(), str(number).encode()
        fastavro.schemaless_writer(out, schema, row("avro", number))
        change = {"schema": {}, "payload": {"before": None, "after": row("table", number), "op": "c"}}
        sent.append(await producer.send("crm.cases", json.dumps(change).encode(), key=key))
        sent.append(await producer.send("desk.cases", struct.pack(">bI", 0, 7) + out.getvalue(), key=key))
    await asyncio.gather(*sent)
    await producer.stop()


@contextlib.contextmanager
def service(name: str, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "TUNEWHEEL_IDENTITY": "open",
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
        **settings,
    }
    with (folder / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", f"tunewheel_{name}.main"], env=environment, stdout=log, stderr=log
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait()


async def events(servers: str, topic: topics.TopicSpec, enough: Any) -> list[Envelope[Any]]:
    """Return the events of ``topic`` from its beginning, until ``enough`` of them are there."""
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Envelope[Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not enough(found):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [Envelope.from_kafka(topic.event, one.value, one.headers) for one in records]
    await consumer.stop()
    return found


def signature(name: str, body: bytes) -> dict[str, str]:
    if name == "zendesk":
        at = datetime.now(UTC).isoformat()
        mac = base64.b64encode(hmac.digest(SECRET.encode(), at.encode() + body, "sha256")).decode()
        return {"X-Zendesk-Webhook-Signature": mac, "X-Zendesk-Webhook-Signature-Timestamp": at}
    if name == "servicenow":
        return signed("m-1", body, secret=SECRET, at=int(time.time()))
    header = "X-Hub-Signature-256" if name == "github" else "X-Hub-Signature"
    return {header: f"sha256={hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()}"}


async def call_webhooks(port: int) -> dict[str, int]:
    taken: dict[str, int] = {}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for name, payload in HOOKS.items():
            body = (PAYLOADS / f"{payload}.json").read_bytes()
            headers = {"content-type": "application/json", **signature(name, body)}
            answer = await client.post(f"/v1/projects/bench/sources/{name}", content=body, headers=headers)
            taken[name] = answer.json()["accepted"]
    return taken


async def connected(servers: str, folder: Path, registry: str) -> dict[str, Any]:
    await ensure_topics({"bootstrap_servers": servers})
    await fill(servers)
    port = free_port()
    (folder / "secrets.yaml").write_text(yaml.safe_dump({f"bench/{name}": SECRET for name in HOOKS}))
    settings = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": servers, "TUNEWHEEL_STORE_URL": (folder / "store").as_uri(),
        "TUNEWHEEL_SOURCE_TOPICS": "*", "TUNEWHEEL_SCHEMA_REGISTRY_URL": registry,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_SOURCE_SECRETS_FILE": str(folder / "secrets.yaml"),
        "TUNEWHEEL_CACHE_DIR": str(folder / "cache"),
    }  # fmt: skip
    draw, began = random.Random(1), time.perf_counter()
    for kill in range(KILLS):
        with service("ingest", folder, **settings):
            part = ROWS * 2 * kill // (KILLS + 2)
            await events(servers, topics.TICKET_PUBLISHED, lambda found, at=part: len(found) > at)
            await asyncio.sleep(draw.random() * 0.3)
    expected = {f"{kind}-{number}" for kind in ("table", "avro") for number in range(ROWS)}

    def all_there(found: list[Envelope[Any]]) -> bool:
        return expected <= {event.data.source_id for event in found}

    with service("ingest", folder, **settings), service("curate", folder, **settings):
        await events(servers, topics.RECORD_INGESTED, all_there)
        seconds = time.perf_counter() - began
        taken = await call_webhooks(port)
        versions = await events(servers, topics.DATASET_VERSIONED, lambda found: found)
    published = await events(servers, topics.TICKET_PUBLISHED, lambda found: len(found) >= len(expected))
    ids = Counter(event.data.ticket_id for event in published)
    return {
        "rows": len(expected), "kills": KILLS, "lost": len(expected - ids.keys()),
        "sent_again": sum(count - 1 for count in ids.values()), "seconds": round(seconds, 1),
        "webhooks_taken": taken, "examples_of_the_version": versions[-1].data.counts.examples,
    }  # fmt: skip


def mapping_rates() -> dict[str, Any]:
    """Return how many records each mapping takes per processor second."""
    rates: dict[str, Any] = {}
    for name in get_args(BuiltIn):
        spec = SourceSpec(name="own", use=name)
        payload = next(path for path in sorted(PAYLOADS.iterdir()) if path.name.startswith(f"{name}_"))
        message, count, began = Message(json.loads(payload.read_text())), 0, time.process_time()
        while time.process_time() - began < 1.0:
            count += len([*mapped(spec, "bench", message, at_door)])
        rates[name] = {"records_per_cpu_second": round(count / (time.process_time() - began))}
    return rates


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with LocalKafka(folder / "kafka", port=None) as broker:
            found = asyncio.run(
                connected(broker.bootstrap_servers, folder, f"http://127.0.0.1:{server.server_port}")
            )
    print(json.dumps(found))
    contenders = {"connected": found, **mapping_rates()}
    write_report("sources", packages=["jmespath", "fastavro", "protobuf"], contenders=contenders, ratios={})


if __name__ == "__main__":
    main()
