"""The first ticket of docs/for-publishers.md arrives from each language of the page, as the same event."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.served import served

from .conftest import Log, make_app

PAGE = (Path(__file__).resolve().parents[4] / "docs/for-publishers.md").read_text("utf-8")
HTTP, KAFKA = PAGE.split("## Straight to Kafka")
PROGRAMS = {
    "python": (sys.executable, "ticket.py"), "js": ("node", "ticket.mjs"), "java": ("java", "Ticket.java"),
    "bash": ("bash", "ticket.sh"),
}  # fmt: skip


class Intake(Log):
    async def check_project(self, project: str) -> None:
        assert project == "helpdesk"


@pytest.fixture
async def intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Intake]:
    """Ingest's door, and the environment that the page sets."""
    intake, file = Intake(), tmp_path / "keys.yaml"
    file.write_text(
        f"keys: {{shop: {{sha256: {content_sha256(b'k')}, roles: [publisher], projects: [helpdesk]}}}}"
    )
    settings = HttpSettings(identity="required", api_keys_file=file)
    with served(make_app(intake, ObjectStore("memory://"), settings)) as url:
        monkeypatch.setenv("TUNEWHEEL_INGEST_URL", url)
        monkeypatch.setenv("TUNEWHEEL_API_KEY", "k")
        yield intake


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_of_the_page_publishes_a_ticket(
    language: str, intake: Intake, tmp_path: Path
) -> None:
    program, name = PROGRAMS[language]
    if shutil.which(program) is None or (language == "bash" and shutil.which("curl") is None):
        pytest.skip(f"this machine has no {language}")
    code = re.findall(rf"<!-- path -->\n```{language}\n(.*?)```", HTTP, re.DOTALL)[-1]
    (tmp_path / name).write_text(code, "utf-8")
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            program, str(tmp_path / name), env=os.environ | {"JAVA_TOOL_OPTIONS": ""},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        assert re.search(r"accepted\W+1\b", said), said
    first, again = intake.events
    assert first.id == again.id
    assert (first.data.type, first.data.project, first.data.ticket_id) == (
        "ticket.published",
        "helpdesk",
        "T-1",
    )
    assert first.data.body == "My locker will not open."


async def test_the_program_for_kafka_writes_a_ticket_that_ingest_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, bytes, bytes, list[tuple[str, bytes]]]] = []

    class Producer:
        def __init__(self, *, bootstrap_servers: str) -> None:
            assert bootstrap_servers == "kafka:9092"

        async def __aenter__(self) -> Producer:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def send_and_wait(self, topic: str, value: bytes, *, key: bytes, headers: Any) -> None:
            sent.append((topic, value, key, headers))

    monkeypatch.setattr("aiokafka.AIOKafkaProducer", Producer)
    monkeypatch.setenv("TUNEWHEEL_BOOTSTRAP_SERVERS", "kafka:9092")
    program = compile(re.findall(r"```python\n(.*?)```", KAFKA, re.DOTALL)[0], "for-publishers.md", "exec")
    for _ in range(2):
        await asyncio.to_thread(exec, program, {})
    topic, value, key, headers = sent[0]
    event = Envelope.from_kafka(
        TicketPublished, value, headers, logged_ms=1_767_225_600_000, from_anybody=True
    )
    assert (topic, key) == (TicketPublished.type, b"T-1")
    assert (event.data.ticket_id, event.data.body) == ("T-1", "My locker will not open.")
    assert sent[0] == sent[1], "the same event"
