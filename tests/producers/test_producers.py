"""Programs in other languages publish each event that another system may write, to a real broker, and ingest
makes of them what it makes of ours. docs/for-publishers.md and docs/connect.md show the same programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import BY_NAME, TOPICS
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.specs import declared

from ..integration.bus import Bus, running
from ..integration.test_ingest import ingest
from ..integration.test_sources import make_topic
from .conftest import HERE, PATIENCE_SECONDS, Jdk, Postgres, connect

pytestmark = [pytest.mark.integration, pytest.mark.nightly("producers")]
ROOT = HERE.parents[1]
INSTALLED = ROOT / "var/node/node_modules"
PAGES = "".join((ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("for-publishers", "connect"))
UPSTREAM = [spec.name for spec in TOPICS if spec.is_from_upstream]
PROGRAMS = {
    path.name: path.read_text("utf-8")
    for path in (HERE / name for name in (
        "publisher.mjs", "Publisher.java", "publish.sh", "tickets.properties", "cases.properties"
    ))
}  # fmt: skip
DATA: dict[str, dict[str, Any]] = {
    "ticket.published": {"ticket_id": "T-1", "body": "My locker will not open."},
    "document.published": {"document_id": "lockers.md", "content": "Press twice."},
    "example.published": {"example_id": "E-1", "input": "Is it a bell?", "output": "No."},
    "feedback.received": {
        "feedback_id": "F-1", "completion_id": "C-1", "rating": "down", "output": "Kick it.",
        "messages": [{"role": "user", "content": "My locker will not open."}], "correction": "Press twice.",
    },
    "document.withdrawn": {"document_id": "old.md"},
    "erasure.requested": {"erasure_id": "L-1", "customer": "person-1", "requested_by": "privacy"},
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_page_shows_the_program_that_is_tested(name: str) -> None:
    shown = re.findall(r"^```\w+\n(.*?)^```$", PAGES, re.DOTALL | re.MULTILINE)
    assert PROGRAMS[name] in shown


@pytest.fixture
async def bus(module_kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """The log, with ingest on it, and what the programs find in their environment."""
    keys = tmp_path / "keys.yaml"
    shop = {"sha256": content_sha256(b"k"), "roles": ["publisher", "operator"], "projects": ["helpdesk"]}
    keys.write_text(json.dumps({"keys": {"shop": shop}}))
    service = ingest(
        module_kafka, tmp_path, identity="required", api_keys_file=keys, source_topics="crm.*=helpdesk",
        **CommandKeys(tmp_path).settings("ingest"),
    )  # fmt: skip
    async with Bus(module_kafka) as bus, running(service):
        monkeypatch.setenv("TUNEWHEEL_BOOTSTRAP_SERVERS", module_kafka)
        monkeypatch.setenv("TUNEWHEEL_INGEST_URL", f"http://127.0.0.1:{service.doors.http_port}")
        monkeypatch.setenv("TUNEWHEEL_API_KEY", "k")
        await bus.publish(declared("helpdesk", sources=[CASES]))
        yield bus


CASES: dict[str, Any] = {
    "name": "crm", "topic": "crm.public.cases", "format": "debezium", "kind": "ticket",
    "map": {"ticket_id": "no", "body": "question", "answer": "reply"},
}  # fmt: skip


async def run(*words: str, folder: Path) -> str:
    """Run a program; return what it printed.

    Raises:
        AssertionError: it failed; the text is what it printed.
    """
    done = await asyncio.to_thread(
        subprocess.run, words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


async def written(bus: Bus, source: str, names: Iterable[str]) -> dict[str, str]:
    """Return the ids of the readable events of ``source``, by topic, once there is one on each."""

    async def first(name: str) -> str:
        async for record in bus.read(name):
            headers = dict(record.headers)
            if headers.get("ce_source", b"").decode() not in ("", source):
                continue
            try:
                event = Envelope.from_kafka(
                    BY_NAME[name].event, record.value, record.headers, logged_ms=record.timestamp,
                    from_anybody=True,
                )  # fmt: skip
            except InvalidEvent:
                continue
            if event.source == source:
                return event.id
        raise AssertionError(name)

    return {name: await asyncio.wait_for(first(name), PATIENCE_SECONDS) for name in names}


async def arrived(bus: Bus, ids: Mapping[str, str]) -> None:
    """Wait until each event of ``ids`` has become what it asks for."""
    for cause in (ids[spec.name] for spec in topics.TAKEN_AGAIN if spec.name in ids):
        (record,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e, c=cause: e.causation_id == c)
        assert record.project == "helpdesk"
    await bus.collect(
        topics.ERASURE_COMPLETED, 1,
        where=lambda e: e.causation_id == ids["erasure.requested"] and e.data.holder == "ingest",
    )  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], Any]:
    if shutil.which("node") is None:
        pytest.skip("this machine has no node")
    if not (INSTALLED / "kafkajs").is_dir():
        pytest.fail("the packages for node are not installed; run: make node-packages")
    (tmp_path / "node_modules").symlink_to(INSTALLED)

    async def start(program: str) -> str:
        (tmp_path / "publisher.mjs").write_text(program, "utf-8")
        return await run("node", "publisher.mjs", folder=tmp_path)

    return start


async def test_node(bus: Bus, node: Callable[[str], Any]) -> None:
    for _ in range(2):
        await node(PROGRAMS["publisher.mjs"])
    ids = await written(bus, "/shop/node", UPSTREAM)
    await arrived(bus, ids)
    await node(PROGRAMS["publisher.mjs"].replace('ticket_id: "T-1"', "ticket_id: 7"))
    (letter,) = await bus.dead_letters("ticket.published", 1, about='"ticket_id":7')
    assert letter.field == "ticket_id"


@pytest.fixture(scope="module")
def types(jdk: Jdk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Java types of the schemas of what other systems may write, as quicktype makes them."""
    tool = INSTALLED / "quicktype/dist/index.js"
    if shutil.which("node") is None:
        pytest.skip("this machine has no node")
    if not tool.is_file():
        pytest.fail("the packages for node are not installed; run: make node-packages")
    folder = tmp_path_factory.mktemp("java")
    (folder / "schemas").mkdir()
    (folder / "types").mkdir()
    for name in UPSTREAM:
        shutil.copy(ROOT / f"contracts/schemas/{name}.json", folder / "schemas")
    words = [
        "--src-lang",
        "schema",
        "--lang",
        "java",
        "--package",
        "tunewheel.events",
        "--array-type",
        "list",
    ]
    schemas = sorted(map(str, folder.glob("schemas/*")))
    made = subprocess.run(
        ["node", str(tool), *words, "--out", "types/Converter.java", *schemas],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "types"


async def test_java(bus: Bus, jdk: Jdk, types: Path, tmp_path: Path) -> None:
    async def start(program: str) -> str:
        source, classes = tmp_path / "Publisher.java", tmp_path / "classes"
        source.write_text(program, "utf-8")
        done = await asyncio.to_thread(jdk.compile, *types.glob("*.java"), source, into=classes)
        assert done.returncode == 0, done.stderr
        path = f"{jdk.classpath}{os.pathsep}{classes}"
        return await run(jdk.java, "-cp", path, "Publisher", folder=tmp_path)

    program = PROGRAMS["Publisher.java"]
    await start(program)
    await arrived(bus, await written(bus, "/shop/java", UPSTREAM))
    await start(program.replace('ticket.setBody("My locker will not open.")', 'ticket.setBody("")'))
    (letter,) = await bus.dead_letters("ticket.published", 1, about='"body":""')
    assert letter.field == "body"
    wrong = program.replace("setTicketID", "setTickteID").replace("Rating.DOWN", "Rating.BAD")
    with pytest.raises(AssertionError) as told:
        await start(wrong.replace('setOutput("Kick it.")', "setOutput(7)"))
    assert re.findall(r"symbol: +\w+ (\w+)|int cannot be converted to (\w+)", str(told.value)) == [
        ("setTickteID", ""), ("BAD", ""), ("", "String"),
    ]  # fmt: skip


async def test_curl(bus: Bus, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    (tmp_path / "publish.sh").write_text(PROGRAMS["publish.sh"], "utf-8")
    said = await run("bash", "-euo", "pipefail", "publish.sh", folder=tmp_path)
    receipts = [json.loads(one) for one in re.findall(r"\{.*?\}(?=\{|\s*$)", said, re.DOTALL)]
    names = [
        "ticket.published",
        "document.published",
        "example.published",
        "document.withdrawn",
        "erasure.requested",
    ]
    assert [one["accepted"] for one in receipts] == [1] * len(names)
    await arrived(bus, dict(zip(names, (one["event_ids"][0] for one in receipts), strict=True)))
    (tmp_path / "publish.sh").write_text(
        PROGRAMS["publish.sh"].replace('"ticket_id": "T-1"', '"ticket_id": 7')
    )
    with pytest.raises(AssertionError, match=r'"field": ?"ticket_id"'):
        await run("bash", "-euo", "pipefail", "publish.sh", folder=tmp_path)


async def test_connect_copies_lines_of_structured_events(
    bus: Bus, jdk: Jdk, module_kafka: str, tmp_path: Path
) -> None:
    connectors: list[str] = []
    for name in UPSTREAM:
        event = {"specversion": "1.0", "type": name, "source": "/shop/connect", "id": f"{name}/1"}
        lines = [event | {"data": DATA[name] | {"project": "helpdesk"}}]
        if name == "ticket.published":
            lines.insert(
                0, event | {"id": "wrong", "data": {"project": "helpdesk", "ticket_id": 7, "body": "connect"}}
            )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        connectors.append(
            PROGRAMS["tickets.properties"]
            .replace("name=tickets", f"name={name}")
            .replace("tickets.jsonl", f"{name}.jsonl")
            .replace("topic=ticket.published", f"topic={name}")
        )
    with connect(jdk, module_kafka, tmp_path, connectors) as meanwhile:
        ids = await meanwhile(written(bus, "/shop/connect", UPSTREAM))
    assert ids == {name: f"{name}/1" for name in UPSTREAM}
    await arrived(bus, ids)
    (letter,) = await bus.dead_letters("ticket.published", 1, about='"body": "connect"')
    assert letter.field == "ticket_id"


async def test_debezium_carries_the_rows_of_a_postgresql(
    bus: Bus, jdk: Jdk, postgres: Postgres, module_kafka: str, tmp_path: Path
) -> None:
    await make_topic(module_kafka, "crm.public.cases")
    await asyncio.to_thread(
        postgres.execute,
        "CREATE ROLE debezium LOGIN REPLICATION PASSWORD 'crm-password'",
        "CREATE DATABASE crm",
        database="postgres",
    )
    await asyncio.to_thread(
        postgres.execute,
        "CREATE TABLE cases (no text PRIMARY KEY, question text NOT NULL, reply text)",
        "ALTER TABLE cases REPLICA IDENTITY FULL",
        "CREATE PUBLICATION dbz_publication FOR TABLE cases",
        "GRANT SELECT ON cases TO debezium",
        "INSERT INTO cases VALUES ('C-1', 'The bell is silent.', NULL), ('C-2', 'The lamp blinks.', NULL)",
    )
    connector = PROGRAMS["cases.properties"].replace("5432", str(postgres.port))
    with connect(jdk, module_kafka, tmp_path, [connector], {"CRM_PASSWORD": "crm-password"}) as meanwhile:
        wanted = bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.data.source_id in ("C-1", "C-2"))
        found = await meanwhile(wanted)
        assert {record.data.input for record in found} == {"The bell is silent.", "The lamp blinks."}
        await asyncio.to_thread(
            postgres.execute,
            "UPDATE cases SET reply = 'Replace it.' WHERE no = 'C-1'",
            "INSERT INTO cases VALUES ('C-3', '', NULL)",
            "DELETE FROM cases WHERE no = 'C-2'",
        )
        await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.data.output == "Replace it.")
        (gone,) = await bus.collect(topics.DOCUMENT_WITHDRAWN, 1, where=lambda e: e.data.kind == "ticket")
        assert gone.data.document_id == "C-2"
        (letter,) = await bus.dead_letters("ticket.published", 1, about="C-3")
        assert letter.field == "body"
