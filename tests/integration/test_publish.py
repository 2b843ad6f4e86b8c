"""Files onto a real log: good lines arrive, bad ones are named, a kill doubles nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from tunewheel_cli.publishing.items import Kind
from tunewheel_cli.publishing.publish import Summary, publish_path
from tunewheel_cli.spec_file import read_spec
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    PROJECT_DECLARED,
    TICKET_PUBLISHED,
    TopicSpec,
)
from tunewheel_testing.declaring import declare
from tunewheel_testing.kafka_door import KafkaDoor
from tunewheel_testing.reading import UnknownProject, decode, read_records, read_topics, require_project
from tunewheel_testing.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

MANY = 6_000
"""Tickets: a publisher is far from their end when the first of them are on the log."""
HELPDESK = Path(__file__).resolve().parents[2] / "examples" / "helpdesk"


def options(kafka: str) -> dict[str, Any]:
    return {"bootstrap_servers": kafka}


async def on_log(kafka: str, topic: TopicSpec, project: str) -> list[Envelope[Any]]:
    return [e async for e in read_topics(options(kafka), (topic,)) if e.project == project]


def tickets(count: int) -> list[bytes]:
    return [json.dumps({"ticket_id": f"T-{n}", "body": f"question {n}"}).encode() for n in range(count)]


async def test_one_bad_line_of_a_thousand_is_named_and_the_rest_arrives(
    kafka: str, project: str, tmp_path: Path
) -> None:
    lines = tickets(1_000)
    lines[99] = b'{"ticket_id": "T-99", "body": 5}'
    lines[199] = b'{"ticket_id": "T-199", "body": "' + b"x" * 20_000_000 + b'"}'
    lines[299] = b'{"ticket_id": "T-299", "body": "\xff"}'
    lines[399] = b'{"document_id": "../../etc/passwd", "content": "x"}'
    lines[499] = b"nonsense"
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(b"\n".join(lines))

    summary = await publish_path(path, project=project, door=KafkaDoor(options(kafka)))

    assert {r.line: r.field for r in summary.refusals} == {
        100: "body", 200: "(line)", 300: "(line)", 400: "document_id", 500: "(line)",
    }  # fmt: skip
    assert (summary.events, summary.refused) == (995, 5)
    arrived = await on_log(kafka, TICKET_PUBLISHED, project)
    assert {e.data.ticket_id for e in arrived} == {f"T-{n}" for n in range(1_000)} - {
        "T-99", "T-199", "T-299", "T-399", "T-499",
    }  # fmt: skip
    assert await on_log(kafka, DOCUMENT_PUBLISHED, project) == []


async def test_records_lie_where_every_other_producer_puts_their_key(
    kafka: str, project: str, tmp_path: Path
) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(b"\n".join(tickets(50)))
    await publish_path(path, project=project, door=KafkaDoor(options(kafka)))
    place = DefaultPartitioner()
    numbers = list(range(TICKET_PUBLISHED.partitions))
    found = 0
    async for record in read_records(options(kafka), [TICKET_PUBLISHED.name]):
        event = decode(record)
        if event is not None and event.project == project:
            found += 1
            assert record.key == event.data.ticket_id.encode()
            assert record.position.partition == place(record.key, numbers, numbers)
    assert found == 50


async def test_a_csv_becomes_examples_with_json_answers(kafka: str, project: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,category\nwhere is my card?,card_arrival\nhi,greeting\n")
    maps = ["text=input", "category=output.label"]
    for _ in range(2):
        await publish_path(
            path, project=project, door=KafkaDoor(options(kafka)), kind=Kind.EXAMPLE, maps=maps
        )
    arrived = await on_log(kafka, EXAMPLE_PUBLISHED, project)
    assert sorted(Counter(e.id for e in arrived).values()) == [2, 2], "twice the same two events"
    assert {(e.data.input, e.data.output["label"]) for e in arrived} == {
        ("where is my card?", "card_arrival"),
        ("hi", "greeting"),
    }


async def test_chat_of_another_tool_becomes_examples_and_says_what_it_left_out(
    kafka: str, project: str, tmp_path: Path
) -> None:
    path = tmp_path / "chat.jsonl"
    turns = [("system", "Be kind."), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path.write_text(json.dumps(chat) + '\n{"messages": []}\n')
    summary = await publish_path(path, project=project, door=KafkaDoor(options(kafka)), validated_by="kim")
    assert (summary.events, summary.refused, len(summary.notes)) == (2, 1, 1)
    arrived = await on_log(kafka, EXAMPLE_PUBLISHED, project)
    assert {(e.data.input, e.data.output, e.data.validated_by) for e in arrived} == {
        ("q", "a", "kim"),
        ("r", "b", "kim"),
    }


async def test_an_unknown_project_is_refused_with_those_that_are(kafka: str, project: str) -> None:
    spec = read_spec(HELPDESK / "project.yaml").model_copy(update={"project": project})
    first = await declare(spec, options(kafka), principal=None)
    again = await declare(spec, options(kafka), principal=None)
    assert first.id == again.id
    declared = await on_log(kafka, PROJECT_DECLARED, project)
    assert {type(e.data) for e in declared} == {ProjectDeclared}
    with pytest.raises(
        UnknownProject, match=f"'nobody' is not declared .*{project}.*tunewheel project declare"
    ):
        await require_project(options(kafka), "nobody")


async def publish_and_kill(path: Path, kafka: str, project: str) -> int:
    """Publish in a process, kill it with -9 once a part is on the log, return how many that were."""
    command = [sys.executable, "-m", "tunewheel_testing.publish_on_kafka", str(path), project, kafka]
    quiet, env = subprocess.DEVNULL, {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet, env=env)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            running = True
            while not (found := await on_log(kafka, TICKET_PUBLISHED, project)):
                assert running, "it ended before anything was on the log"
                running = process.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return len(found)


async def test_publishing_again_after_a_kill_doubles_nothing(
    fresh_kafka: str, project: str, tmp_path: Path
) -> None:
    kafka = fresh_kafka  # on the shared one, whoever reads tickets from the beginning would read all of these
    spec = read_spec(HELPDESK / "project.yaml").model_copy(update={"project": project})
    await declare(spec, options(kafka), principal=None)
    path = tmp_path / "many.jsonl"
    path.write_bytes(b"\n".join(tickets(MANY)))
    assert await publish_and_kill(path, kafka, project) > 0
    before = await on_log(kafka, TICKET_PUBLISHED, project)

    summary: Summary = await publish_path(path, project=project, door=KafkaDoor(options(kafka)))
    assert summary.events == MANY
    arrived = await on_log(kafka, TICKET_PUBLISHED, project)
    assert {e.data.ticket_id for e in arrived} == {f"T-{n}" for n in range(MANY)}
    times = Counter(e.id for e in arrived)
    assert len(times) == MANY, "an event that came twice has one id"
    assert max(times.values()) == 2
    # What was on its way when the kill came may have arrived since.
    assert len(arrived) >= MANY + len(before)
