"""No secret reaches a log, a file, an answer or a topic, also when passwords are wrong and others answer 401.

Every secret setting holds a text that begins alike. Afterwards everything that the services wrote is searched
for that beginning, plain and in base64.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import importlib
import json
import re
import ssl
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from tunewheel_contracts import topics
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import TOPICS
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.log import read
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.specs import declared

from . import secured_kafka
from .bus import Bus, process, until
from .secured_kafka import SecuredKafka
from .test_sources import make_topic

BEGINNING = "sesame-opens"
NAMES = ("ingest", "curate", "train", "eval", "registry", "serve_gateway", "monitor", "index", "console")
FROM_KAFKA = ("ssl_keyfile_password", "sasl_password", "sasl_oauth_client_secret")
PATIENCE_SECONDS = 900.0


def secret(name: str) -> str:
    return f"{BEGINNING}-the-cave-of-{name.replace('_', '-')}"


SPELT = {"limits_url": "redis://:{}@127.0.0.1:1/0", "mlflow_tracking_uri": "http://tunewheel:{}@127.0.0.1:1"}
"""Secret settings that are addresses."""


def settings_of(service: str) -> type[ServiceSettings]:
    return importlib.import_module(f"tunewheel_{service}.settings").Settings


def secret_fields(service: str) -> list[str]:
    fields = settings_of(service).model_fields
    return [name for name, field in fields.items() if SecretStr.__name__ in str(field.annotation)]


def traces(text: bytes, beginnings: Iterable[str] = (BEGINNING,)) -> list[bytes]:
    """Return what of ``text`` is a secret's beginning, with what stands around it."""
    spelt: list[bytes] = []
    for beginning in beginnings:
        raw = beginning.encode()
        inner = [base64.b64encode(b"x" * n + raw)[4 if n else 0 : -4] for n in range(3)]
        spelt += [raw, *inner]
    return [
        text[max(0, at.start() - 150) : at.end() + 60]
        for one in spelt
        for at in re.finditer(re.escape(one), text)
    ]


def test_the_search_finds_a_secret_in_whatever_form() -> None:
    whole = secret("x")
    basic = base64.b64encode(f"user:{whole}".encode())
    for text in (
        whole.encode(),
        b"Basic " + basic,
        base64.b64encode(f"me:{whole}".encode()),
        json.dumps(whole).encode(),
    ):
        assert traces(b"before " + text)
    assert not traces(b"open, sesame")


@pytest.mark.parametrize("service", NAMES)
def test_settings_show_no_secret_also_when_they_are_refused(service: str) -> None:
    names = secret_fields(service)
    assert {"signing_key", "sasl_password", "tls_keyfile_password"} <= {*names}
    told: dict[str, Any] = {name: SPELT.get(name, "{}").format(secret(name)) for name in names}
    settings = settings_of(service)(**told, store_url="memory://")
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert not traces(shown.encode())
    for wrong in ({"http_port": BEGINNING}, {"security_protocol": "SASL"}, {names[0]: [BEGINNING]}):
        with pytest.raises(ValidationError) as refused:
            settings_of(service)(**(told | wrong))
        assert not traces(str(refused.value).encode())
    short = {name: f"{BEGINNING}"[:12] for name in names if name.endswith("_secret")}
    with contextlib.suppress(ValidationError):
        settings_of(service)(**short, http_port=-1)
        raise AssertionError("a port below zero was taken")


class Everybody(SecuredKafka):
    """A broker that lets a service do everything once the service has said who it is."""

    def _properties(self) -> dict[str, str]:
        users = ";".join(f"User:tunewheel-{name}" for name in NAMES)
        return super()._properties() | {"super.users": f"User:ANONYMOUS;{users}"}


@pytest.fixture
def kafka_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Everybody]:
    monkeypatch.setattr(secured_kafka, "PASSWORD", secret("kafka"))
    broker = Everybody(tmp_path / "broker", NAMES)
    try:
        with broker.broker:
            asyncio.run(ensure_topics(broker.operator))
            yield broker
    finally:
        broker.issuer.close()


@pytest.fixture
def unfriendly() -> Iterator[str]:
    """A server that answers everything with 401, and repeats what it was told."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"error": {"message": f"who is that? {self.headers}"}}).encode()
            self.send_response(401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


class House:
    """Processes of services in ``folder``, whose every file is searched, and the secrets beside it."""

    def __init__(self, broker: Everybody, folder: Path, authority: Any, unfriendly: str) -> None:
        self.broker, self.folder, self.beside = broker, folder / "searched", folder / "beside"
        self.folder.mkdir()
        self.beside.mkdir()
        self.signing = CommandKeys(self.beside)
        self.keys = self.beside / "keys.yaml"
        caller = {
            "sha256": content_sha256(secret("caller").encode()),
            "roles": ["operator", "publisher", "application"],
        }
        self.keys.write_text(json.dumps({"keys": {"shop": caller}}))
        (self.beside / "sources.yaml").write_text(f"desk/hook: {secret('source')}\n")
        self.tls = authority.issue("127.0.0.1", password=secret("tls_keyfile_password"))
        self.unfriendly = unfriendly
        self.ports: dict[str, tuple[int, int]] = {}

    def kafka(self, number: int, service: str, *, wrong: bool = False) -> dict[str, Any]:
        known = secret("wrong") if wrong else secret("kafka")
        if number % 3 == 0 and not wrong:
            settings = self.broker.by_certificate(service)
            name, password = f"tunewheel-{service}", secret("ssl_keyfile_password")
            certfile, keyfile = self.broker.authority.issue(name, password=password)
            return settings | {
                "ssl_certfile": certfile,
                "ssl_keyfile": keyfile,
                "ssl_keyfile_password": password,
            }
        if number % 2:
            return self.broker.by_password(service, password=known)
        return self.broker.by_token(service, secret=known)

    def environment(self, number: int, service: str, *, wrong: bool = False) -> dict[str, str]:
        self.ports[service] = (free_port(), free_port())
        said: dict[str, Any] = {
            name: SPELT.get(name, "{}").format(secret(name))
            for name in secret_fields(service) if name not in FROM_KAFKA
        }  # fmt: skip
        del said["signing_key"]
        said |= self.kafka(number, service, wrong=wrong) | {
            "http_port": self.ports[service][0], "health_port": self.ports[service][1],
            "identity": "required", "api_keys_file": self.keys, "log_level": "DEBUG",
            "tls_certfile": self.tls[0], "tls_keyfile": self.tls[1],
            "cache_dir": self.folder / service / "cache", "work_dir": self.folder / service / "work",
            "otlp_endpoint": f"http://tunewheel:{secret('otlp')}@{self.unfriendly}",
            "engine_url": f"http://{self.unfriendly}",
            "source_topics": "crm.*", "source_secrets_file": self.beside / "sources.yaml",
            "schema_registry_url": f"http://{self.unfriendly}", "schema_registry_username": "desk",
            "webhook_hosts": "127.0.0.1",
        }  # fmt: skip
        told = {f"TUNEWHEEL_{name.upper()}": str(value) for name, value in said.items()}
        return told | self.signing.environment(service.replace("_", "-"))

    @contextlib.contextmanager
    def running(
        self, services: Iterable[str], *, wrong: bool = False, **more: str
    ) -> Iterator[dict[str, Any]]:
        with contextlib.ExitStack() as stack:
            yield {
                service: stack.enter_context(
                    process(
                        f"tunewheel_{service}.main", "", self.folder / "store", self.log(service),
                        **self.environment(NAMES.index(service), service, wrong=wrong), **more,
                    )
                )
                for service in services
            }  # fmt: skip

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def secrets(self) -> list[str]:
        return [BEGINNING, *(json.loads(key)["d"] for key in map(str, self.signing.private.values()))]

    def found(self) -> list[str]:
        """Return where a secret lies, with what stands around it."""
        found: list[str] = []
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        assert len(files) > 2
        for path in files:
            data = path.read_bytes()
            for text in (data, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""):
                found += [f"{path.relative_to(self.folder)}: {one!r}" for one in traces(text, self.secrets())]
        return found


@pytest.fixture
def house(kafka_that_asks: Everybody, tmp_path: Path, authority: Any, unfriendly: str) -> House:
    return House(kafka_that_asks, tmp_path, authority, unfriendly)


@pytest.mark.integration
@pytest.mark.nightly("secrets")
async def test_wrong_passwords_and_a_store_that_is_away_are_told_without_the_secret(house: House) -> None:
    def tells(service: str, what: str) -> bool:
        return bool(re.search(what, house.log(service).read_text("utf-8", "replace")))

    refusals = {"curate": r"(?i)authenticat|credential", "monitor": r"(?i)invalid_client|unknown client"}
    with house.running(refusals, wrong=True):
        for service, what in refusals.items():
            await until(lambda s=service, w=what: tells(s, w), service, patience=PATIENCE_SECONDS)
    away = {
        "TUNEWHEEL_STORE_URL": "s3://bucket/wheel", "AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_REGION": "eu",
        "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "desk", "AWS_SECRET_ACCESS_KEY": secret("store"),
    }  # fmt: skip
    with house.running(["registry"], **away):
        store = r"127\.0\.0\.1:1\b|store.{0,80}(?:away|reach)"
        await until(lambda: tells("registry", store), "registry", patience=PATIENCE_SECONDS)
    assert house.found() == []


@pytest.mark.integration
@pytest.mark.nightly("secrets")
async def test_what_services_write_and_answer_in_use_and_in_trouble_holds_no_secret(house: House) -> None:
    operator, answers = house.broker.operator, list[str]()
    await make_topic(operator["bootstrap_servers"], "crm.cases")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    source = {"kind": "ticket", "map": {"ticket_id": "no", "body": "text"}}
    async with (
        Bus(operator["bootstrap_servers"]) as bus,
        httpx.AsyncClient(verify=trusting, timeout=300) as client,
    ):
        sources = [
            {"name": "crm", "topic": "crm.cases", "format": "avro", **source},
            {"name": "hook", "webhook": "hmac", **source},
        ]
        await bus.publish(declared("desk", sources=sources))
        await bus.send("crm.cases", b"1", b"\x00\x00\x00\x00\x07rest", {})
        await bus.send("ticket.published", b"k", b'{"project": "desk", "ticket_id": 7}', {})

        async def ask(service: str, method: str, path: str, key: str, **words: Any) -> int:
            url = f"https://127.0.0.1:{house.ports[service][0]}{path}"
            answer = await client.request(method, url, headers={"authorization": f"Bearer {key}"}, **words)
            answers.append(f"{service} {path} {answer.status_code} {answer.headers} {answer.text}")
            return answer.status_code

        async def is_ready(service: str) -> bool:
            assert started[service].poll() is None, house.log(service).read_text("utf-8", "replace")[-3_000:]
            try:
                answer = await client.get(f"https://127.0.0.1:{house.ports[service][1]}/health/ready")
            except httpx.TransportError:
                return False
            answers.append(answer.text)
            return answer.status_code == 200

        with house.running(NAMES) as started:
            for service in NAMES:
                if service != "train":  # It waits for MLflow, which is away.
                    await until(lambda s=service: is_ready(s), service, patience=PATIENCE_SECONDS)
            ticket = {"project": "desk", "ticket_id": "T-1", "body": "The bell is silent."}
            assert await ask("ingest", "POST", "/v1/tickets", secret("caller"), json=ticket) == 202
            assert await ask("ingest", "POST", "/v1/tickets", secret("nobody"), json=ticket) == 401
            for service in ("registry", "serve_gateway", "console"):
                assert await ask(service, "GET", "/v1/projects/desk/models", secret("nobody")) in (401, 404)
            chat = {"model": "desk", "messages": [{"role": "user", "content": "hello"}]}
            assert (
                await ask("serve_gateway", "POST", "/v1/chat/completions", secret("caller"), json=chat) >= 400
            )
            assert (
                await ask("ingest", "POST", "/v1/projects/desk/sources/hook", secret("caller"), json={})
                == 401
            )
            (record,) = await bus.collect(topics.RECORD_INGESTED, 1)
            assert record.project == "desk"
            await bus.dead_letters("ticket.published", 1)
            await until(
                lambda: "registry answered 401" in house.log("ingest").read_text("utf-8"),
                "registry",
                patience=PATIENCE_SECONDS,
            )
            for service in NAMES:
                for path in ("/metrics", "/health/ready"):
                    with contextlib.suppress(httpx.TransportError):
                        answer = await client.get(f"https://127.0.0.1:{house.ports[service][1]}{path}")
                        answers.append(answer.text)
    assert house.found() == []
    assert traces("\n".join(answers).encode(), house.secrets()) == []
    names = [name for spec in TOPICS for name in (spec.name, spec.dead_letter)]
    seen = set[str]()
    async for records in read(operator, names, missing_ok=True):
        for record in records:
            seen.add(record.position.topic)
            whole = b" ".join([record.value or b"", record.key or b"", *record.headers.values()])
            assert traces(whole, house.secrets()) == [], record.position
    assert {"project.declared", "ticket.published", "ticket.published.dlq", "record.ingested"} <= seen
