"""contracts publish, against a small registry that takes only what the API reference documents."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tunewheel_cli.frame import app
from tunewheel_contracts.topics import TOPICS
from typer.testing import CliRunner

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
SUBJECT = re.compile(r"/subjects/([\w.-]+)(/versions)?")


class Registry(BaseHTTPRequestHandler):
    """Subjects with versions and levels. It answers as the API reference says, and to nothing else."""

    subjects: dict[str, list[str]] = {}
    levels: dict[str, str] = {}
    refuses: str = ""
    calls: list[str] = []

    def do_POST(self) -> None:
        self.calls.append(f"POST {self.path}")
        place, body = SUBJECT.fullmatch(self.path), self._body()
        assert place is not None
        assert body.keys() == {"schemaType", "schema"}
        assert body["schemaType"] == "JSON"
        schema = json.loads(body["schema"])
        assert schema["$schema"].endswith("2020-12/schema")
        assert "$id" not in schema
        subject, versions = place[1], self.subjects.get(place[1])
        if self.headers["authorization"] != f"Basic {base64.b64encode(b'desk:secret').decode()}":
            self._answer(401, {"error_code": 40101, "message": "who are you?"})
        elif place[2]:
            if self.refuses and self.levels.get(subject) != "NONE":
                self._answer(409, {"error_code": 409, "message": self.refuses})
                return
            self.subjects.setdefault(subject, []).append(body["schema"])
            self._answer(200, {"id": self._id(body["schema"])})
        elif versions is None:
            self._answer(404, {"error_code": 40401, "message": "Subject not found"})
        elif body["schema"] not in versions:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            version = versions.index(body["schema"]) + 1
            told = {"subject": subject, "id": self._id(body["schema"]), "version": version}
            self._answer(200, told | {"schema": body["schema"]})

    def do_PUT(self) -> None:
        self.calls.append(f"PUT {self.path}")
        body = self._body()
        self.levels[self.path.removeprefix("/config/")] = body["compatibility"]
        self._answer(200, body)

    def _id(self, schema: str) -> int:
        every = dict.fromkeys(text for versions in self.subjects.values() for text in versions)
        return [*every].index(schema) + 1

    def _body(self) -> dict[str, Any]:
        assert self.headers["content-type"] == MEDIA_TYPE
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("content-type", MEDIA_TYPE)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Registry]]:
    kind = type("Fresh", (Registry,), {"subjects": {}, "levels": {}, "calls": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TUNEWHEEL_SCHEMA_REGISTRY_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("TUNEWHEEL_SCHEMA_REGISTRY_USERNAME", "desk")
    monkeypatch.setenv("TUNEWHEEL_SCHEMA_REGISTRY_PASSWORD", "secret")
    yield kind
    server.shutdown()


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["contracts", "publish", *words])


def test_what_other_systems_write_is_published_once(registry: type[Registry]) -> None:
    first, again = json.loads(run("--json").stdout), json.loads(run("--json").stdout)
    names = {f"{spec.name}-value" for spec in TOPICS if spec.is_from_upstream}
    assert len(names) == 6
    assert {one["subject"] for one in first} == set(registry.subjects) == names
    assert [one["new"] for one in first] == [True] * 6
    assert [one["new"] for one in again] == [False] * 6
    assert [one["id"] for one in first] == [one["id"] for one in again]
    assert {len(versions) for versions in registry.subjects.values()} == {1}
    assert registry.levels == dict.fromkeys(names, "BACKWARD")


def test_all_topics_under_a_prefix(registry: type[Registry]) -> None:
    assert run("--all", "--topic-prefix", "acme.").exit_code == 0
    assert set(registry.subjects) == {f"acme.{spec.name}-value" for spec in TOPICS}
    assert registry.levels["acme.dataset.versioned-value"] == "FORWARD"
    assert registry.levels["acme.ticket.published-value"] == "BACKWARD"


def test_a_schema_that_the_registry_finds_incompatible_needs_a_word(registry: type[Registry]) -> None:
    registry.subjects["ticket.published-value"] = ["{}"]
    registry.refuses = "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"
    refused = run()
    assert refused.exit_code == 1
    assert "--compatibility NONE" in refused.stderr
    assert registry.refuses in refused.stderr
    registry.refuses = ""
    assert run().exit_code == 0
    registry.subjects = {name: ["{}"] for name in registry.subjects}
    registry.refuses = "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"
    assert run("--compatibility", "NONE").exit_code == 0
    assert {len(versions) for versions in registry.subjects.values()} == {2}


def test_who_is_not_let_in_reads_why(registry: type[Registry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWHEEL_SCHEMA_REGISTRY_PASSWORD", "wrong")
    refused = run()
    assert refused.exit_code == 1
    assert "answered 401" in refused.stderr
    assert "who are you?" in refused.stderr


def test_a_registry_that_is_away_or_no_address(registry: type[Registry]) -> None:
    assert run("--registry", "http://127.0.0.1:1").exit_code == 5
    assert run("--registry", "registry:8081").exit_code == 2
    held = run("--registry", "http://desk:s3cret@127.0.0.1:1")
    assert (held.exit_code, "s3cret" in held.output + held.stderr) == (2, False)
    assert registry.calls == []
