"""``publish`` through ingest's own API: what comes to the log, what is refused and where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewheel_client.contexts import Context, put
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.identity import content_sha256
from tunewheel_ingest.door.app import make_api
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.console import KEY, Console
from tunewheel_testing.log import MemoryLog
from tunewheel_testing.served import served


class Intake(MemoryLog):
    """An intake that knows the project ``desk`` and keeps what is published."""

    wrap = MemoryLog.new
    publish = MemoryLog.publish_many  # type: ignore[assignment]

    def admit(self, project: str) -> None:
        """Take from every project as much as comes."""

    async def check_project(self, project: str) -> None:
        if project != "desk":
            raise InvalidEvent(field="project", reason=f"{project!r} is not declared; declare it")


@pytest.fixture
def access(console: Console) -> Access:
    """Whom ingest knows."""
    return console.access


@pytest.fixture
def intake(console: Console, access: Access, run: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    """The log behind an ingest that the context in use names. No Kafka can be reached."""
    intake = Intake()
    limits = {"max_body_bytes": 4 << 20, "publish_batch": 10, "max_document_bytes": 64}
    web = make_api(intake, ObjectStore("memory://"), **limits)  # type: ignore[arg-type]
    guard(web.routes, access)
    monkeypatch.delenv("TUNEWHEEL_URL")
    monkeypatch.setenv("TUNEWHEEL_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    with served(web) as url:
        told = {"url": console.url, "key": KEY, "addresses": {"ingest": url}, "project": "desk"}
        put("here", Context.model_validate(told))
        yield intake


def test_lines_are_published_and_wrong_ones_are_named(intake: Intake, run: Any, tmp_path: Path) -> None:
    lines = [{"ticket_id": f"T-{n}", "body": f"bell {n}"} for n in range(1_200)]
    lines[7]["body"] = ""
    file = tmp_path / "tickets.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):
        told = json.loads(run("publish", str(file), "--json", code=3).stdout)
        assert (told["published"], told["refused"]) == (1_199, 1)
        assert [(one["line"], one["field"]) for one in told["refusals"]] == [(8, "body")]
    assert len(intake.of("ticket.published")) == 1_199, "published again, nothing doubles"
    assert {event.data.principal.name for event in intake.events} == {"lead"}


class TestWithoutTheRoleExpert:
    @pytest.fixture
    def access(self, tmp_path: Path) -> Access:
        entry = {"sha256": content_sha256(KEY.encode()), "roles": ["publisher"]}
        (tmp_path / "keys.json").write_text(json.dumps({"keys": {"crm": entry}}))
        settings = HttpSettings(identity="required", api_keys_file=tmp_path / "keys.json")
        return Access(settings, warn=lambda *_: None)

    @pytest.mark.usefixtures("intake")
    def test_the_publisher_is_told_that_its_answers_were_lowered_and_why(
        self, run: Any, tmp_path: Path
    ) -> None:
        lines = [{"ticket_id": f"T-{n}", "body": "bell", "answer": "a"} for n in range(1_200)]
        file = tmp_path / "tickets.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert json.loads(run("publish", str(file), "--json").stdout)["lowered"] == 0
        told = json.loads(run("publish", str(file), "--validated-by", "kim", "--json").stdout)
        assert (told["published"], told["lowered"]) == (1_200, 1_200)
        assert "1,200 validated answers count as unverified: crm lacks the role expert" in told["notes"][-1]


def test_what_ingest_refuses_counts_as_refused(intake: Intake, run: Any, tmp_path: Path) -> None:
    file = tmp_path / "tickets.jsonl"
    file.write_text('{"ticket_id": "T-1", "body": "bell"}\n')
    told = json.loads(run("publish", str(file), "-p", "other", "--json", code=3).stdout)
    assert (told["published"], told["by_topic"].get("ticket.published", 0), told["refused"]) == (0, 0, 1)
    assert (told["refusals"][0]["line"], told["refusals"][0]["field"]) == (1, "project")


def test_a_folder_goes_with_its_files_and_large_ones_are_named(
    intake: Intake, run: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "sops"
    folder.mkdir()
    (folder / "a.md").write_text("# Lockers")
    (folder / "b.pdf").write_bytes(b"%PDF-1.7")
    (folder / "c.pdf").write_bytes(b"%PDF-1.7" + b"x" * 100)
    told = json.loads(run("publish", str(folder), "--json", code=3).stdout)
    assert {one.document_id for one in intake.of("document.published")} == {"a.md", "b.pdf"}
    assert [one["where"] for one in told["refusals"]] == ["c.pdf"]


def test_without_ingest_nothing_is_published(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "tickets.jsonl"
    file.write_text('{"ticket_id": "T-1", "body": "bell"}\n')
    assert "ingest" in run("publish", str(file), "-p", "desk", code=2).stderr
