"""A Kafka that knows everybody and allows each what ``tunewheel admin acls`` prints: mTLS, SCRAM, tokens."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunewheel_cli.acls import PRINCIPALS, SERVICES, least_acls
from tunewheel_cli.frame import app
from tunewheel_cli.publishing.publish import publish_path
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.generation.asyncapi import produced_by
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TICKET_PUBLISHED,
    TOPICS,
)
from tunewheel_local.kafka.errors import JarUnavailable
from tunewheel_local.topics import Topic, ensure_topics
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.record_search import RecordSearch
from tunewheel_runtime.retention import Retention
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.declaring import declare, forget
from tunewheel_testing.kafka_door import KafkaDoor
from tunewheel_testing.specs import small_spec
from typer.testing import CliRunner

from .bus import PATIENCE_SECONDS, Bus, running, until
from .secured_kafka import Authority, SecuredKafka, allow, forbid, secured_kafka
from .verdicts import passed, trained

pytestmark = pytest.mark.integration


def cli(settings: dict[str, Any], *arguments: str) -> tuple[int, str, str]:
    """Run the command with ``settings`` in its environment; return its exit code and what it printed."""
    told = {f"TUNEWHEEL_{name.upper()}": str(value) for name, value in settings.items()}
    result = CliRunner().invoke(app, arguments, env=told)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def options_of(settings: dict[str, Any]) -> dict[str, Any]:
    return client_options(KafkaSettings(**settings))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The broker with the printed ACLs; its topics are made, and mended, by whom they allow to."""
    root = tmp_path_factory.mktemp("secured")
    code, printed, _ = cli({}, "admin", "acls", "--json")
    assert code == 0
    try:
        with secured_kafka(root, PRINCIPALS) as broker:
            asyncio.run(allow(broker.operator, json.loads(printed)))
            too_small = Topic(TICKET_PUBLISHED.name, 1, {"retention.ms": "60000"})
            asyncio.run(ensure_topics(broker.operator, [too_small]))
            code, printed, err = cli(broker.by_certificate("topics"), "admin", "topics", "--apply", "--json")
            assert (code, err) == (0, "")
            assert json.loads(printed)["in_order"]
            assert len(json.loads(printed)["altered"]) == 5, (
                "partitions, retention, size, time stamps, segments"
            )
            yield broker
    except JarUnavailable as error:
        pytest.skip(f"Kafka's jars are not in the cache and cannot be downloaded: {error}")


def made(name: str, settings: dict[str, Any], folder: Path, **more: Any) -> Service:
    """Build the service as its process does."""
    package = f"tunewheel_{name.replace('-', '_')}"
    main: Any = importlib.import_module(f"{package}.main")
    own: Any = importlib.import_module(f"{package}.settings").Settings
    places = {"store_url": (folder / "store").as_uri(), "cache_dir": folder, "work_dir": folder / "work"}
    return main.make_app(own(**settings, **places, **more))


@asynccontextmanager
async def running_together(*services: Service) -> AsyncIterator[None]:
    """Run ``services`` in this loop; they start and stop side by side."""
    serving = [asyncio.create_task(Lifecycle(service).serve()) for service in services]
    try:
        await until(
            lambda: all(
                s.health.ready or s.failure or t.done() for s, t in zip(services, serving, strict=True)
            )
        )
        assert [service.name for service in services if not service.health.ready] == []
        yield
    finally:
        for service in services:
            service.stop()
        await asyncio.wait_for(asyncio.gather(*serving), PATIENCE_SECONDS)


async def test_every_service_does_its_work_with_its_rights_and_uses_all_of_them(
    secured: SecuredKafka, tmp_path: Path, project: str
) -> None:
    ways = (secured.by_certificate, secured.by_password, secured.by_token)
    signing, keys = CommandKeys(tmp_path), tmp_path / "keys.yaml"
    keys.write_text("keys: {}\n")
    asks = {"identity": "required", "api_keys_file": keys}  # the offsets from which commands are signed, too
    services = {
        name: made(name, ways[n % len(ways)](name), tmp_path, **asks, **signing.settings(name))
        for n, name in enumerate(SERVICES)
    }
    async with running_together(*services.values()):
        async with Bus(secured.broker.bootstrap_servers) as bus:
            await _refuse_a_message_of_every_topic(bus, services)
        async with Bus(secured.broker.bootstrap_servers) as bus:
            await _turn_the_wheel(secured, bus, project, tmp_path)
        await _look_for_a_completion(services["serve-gateway"])
        for name in ("ingest", "curate"):
            await _delete_what_was_handled(services[name])

    assert secured.audited("Denied") == set()
    granted = {
        (acl.name, operation, acl.kind.lower(), acl.resource)
        for acl in least_acls()
        for operation in acl.operations
        if acl.name in SERVICES
    }
    unused = granted - secured.audited("Allowed")
    produced = {(name, "Write", "topic", spec.name) for name in SERVICES for spec in produced_by(name)}
    # Nobody asks the console here how far the services' groups are, for a version, or to withdraw a document.
    produced |= {right for right in granted if right[:3] == ("console", "Describe", "group")}
    produced |= {
        ("console", "Describe", "topic", spec.name) for spec in (TICKET_PUBLISHED, EXAMPLE_PUBLISHED)
    }
    produced.add(("console", "Read", "topic", DOCUMENT_PUBLISHED.name))
    # Nobody asks here that a refused rating is handled again.
    produced.add(("ingest", "Write", "topic", FEEDBACK_RECEIVED.name))
    # A record that nobody can read gets its letter from the first service, a refused event from its refuser.
    letters = {f"{spec.name}.dlq" for spec in TOPICS if spec.is_from_upstream}
    produced |= {right for right in granted if right[1] == "Write" and right[3] in letters}
    assert len(granted) > 200
    assert unused - produced == set(), "rights that nobody needs"
    assert unused != produced


async def _look_for_a_completion(gateway: Service) -> None:
    """Read the log of completions as the gateway does for feedback on what another gateway answered."""
    search = RecordSearch(gateway.settings, topics.INFERENCE_COMPLETED)
    try:
        assert await search.find("nobody's", datetime.now(UTC) - timedelta(hours=1)) is None
    finally:
        await search.close()


async def _delete_what_was_handled(owner: Service) -> None:
    for topic in (topic for topic in TOPICS if topic.deleted_by == owner.name):
        retention = Retention(
            owner.settings, owner.store, topic, days=0, warn=owner.health.warn, failed=owner.fail
        )
        await until(lambda retention=retention: retention.sweep(datetime.now(UTC)))


async def _refuse_a_message_of_every_topic(bus: Bus, services: dict[str, Service]) -> None:
    """Publish what nobody can decode, of somebody who is erased later: each service that handles the topic
    writes a dead letter, and of what upstream systems wrote the first of them alone."""
    handlers = {
        spec: sum(
            (group, spec.name) in service.groups and not group.endswith(".active")
            for service in services.values()
            for group in spec.groups_of(service.name)
        )
        for spec in TOPICS
    }
    for spec in TOPICS:
        await bus.send(spec.name, b"k", b'{"customer": "ann"}', {})
    for spec, count in handlers.items():
        if count:
            wanted = 1 if spec.is_from_upstream else count
            assert len(await bus.dead_letters(spec.name, wanted)) == wanted


async def _turn_the_wheel(secured: SecuredKafka, bus: Bus, project: str, folder: Path) -> None:
    """Declare, publish, build and erase, each by who may, and known to Kafka in another way."""
    tickets = folder / "tickets.jsonl"
    lines = [{"ticket_id": f"T-{n}", "customer": "ann", "body": f"bell {n}"} for n in range(3)]
    tickets.write_text("\n".join(map(json.dumps, lines)))
    publisher = secured.by_password("upstream-tickets", mechanism="PLAIN")
    await declare(small_spec(project), options_of(secured.by_token("console")))
    await publish_path(tickets, project=project, door=KafkaDoor(options_of(publisher)))
    await forget(options_of(secured.by_certificate("upstream-privacy")), project, "ann")
    await bus.publish(trained(project, 1), passed(project, 1))
    records = await bus.collect(topics.RECORD_INGESTED, 3, where=_of(project))
    assert {event.data.source_id for event in records} == {"T-0", "T-1", "T-2"}
    proofs = await bus.collect(topics.ERASURE_COMPLETED, len(HOLDERS), where=_of(project))
    assert {proof.data.holder for proof in proofs} == set(HOLDERS)
    routed = await bus.collect(topics.SERVING_DESIRED, 2, where=_of(project))
    assert routed[-1].data.desired.routes


def _of(project: str) -> Any:
    return lambda event: event.project == project


def way_in(secured: SecuredKafka, case: str, folder: Path) -> dict[str, Any]:
    """Return the settings of somebody whom the broker does not let in."""
    stranger = Authority(folder / "stranger", "a stranger's")
    certfile, keyfile = stranger.issue("tunewheel-cli")
    known, file = secured.by_certificate("cli"), folder / "token"
    file.write_text(secured.issuer.token("tunewheel-cli", audience="others") if "others" in case else "")
    return {
        "wrong password": secured.by_password("cli", password="no"),
        "another mechanism": secured.by_password("cli", mechanism="SCRAM-SHA-256"),
        "wrong client secret": secured.by_token("cli", secret="no"),
        "a token for others": secured.by_token_file(file),
        "no token": secured.by_token_file(file),
        "no certificate": {
            name: value for name, value in known.items() if name[:7] not in ("ssl_cer", "ssl_key")
        },
        "a stranger's certificate": known | {"ssl_certfile": certfile, "ssl_keyfile": keyfile},
        "another authority": known | {"ssl_cafile": stranger.cafile},
        "no TLS": known | {"security_protocol": "PLAINTEXT"},
    }[case]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("wrong password", "does not let this client in: Authentication failed"),
        ("another mechanism", "does not accept sasl_mechanism SCRAM-SHA-256 there"),
        (
            "wrong client secret",
            "token refuses with status 401: invalid_client, unknown client or wrong secret",
        ),
        ("a token for others", 'does not accept the token: {"status":"invalid_token"}'),
        ("no token", "holds no token: it is empty"),
        ("no certificate", "fails the TLS handshake: set ssl_certfile and ssl_keyfile"),
        ("a stranger's certificate", "it does not know the authority that signed ssl_certfile"),
        ("another authority", "its certificate is not signed by an authority in ssl_cafile"),
        ("no TLS", "does it speak PLAINTEXT there?"),
    ],
)
def test_who_is_not_let_in_is_told_why(case: str, reason: str, secured: SecuredKafka, tmp_path: Path) -> None:
    code, _, err = cli(way_in(secured, case, tmp_path), "admin", "topics")
    assert code == 5
    assert err.startswith("tunewheel: --bootstrap-servers: no connection to Kafka: 127.0.0.1:")
    assert reason in err
    assert err.count("\n") == 1


async def test_who_may_only_look_publishes_nothing(secured: SecuredKafka, tmp_path: Path) -> None:
    lines = tmp_path / "tickets.jsonl"
    lines.write_text('{"ticket_id": "T-1", "body": "bell"}')
    await declare(small_spec("seen"), options_of(secured.by_certificate("console")))
    looks = secured.by_certificate("cli")
    with pytest.raises(NotAllowed, match="Kafka does not let this client write to any topic: grant its"):
        await publish_path(lines, project="seen", door=KafkaDoor(options_of(looks)))


def test_the_doctor_tells_whose_rights_a_client_has(secured: SecuredKafka, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()

    def findings(principal: str, name: str, about: str) -> list[tuple[str, str]]:
        store = (tmp_path / "store").as_uri()
        way = secured.by_certificate(principal)
        code, out, _ = cli(way, "doctor", name, "--store-url", store, "--json")
        assert code == int("wrong" in (one["verdict"] for one in json.loads(out)["findings"]))
        found = json.loads(out)["findings"]
        return [(one["verdict"], one["text"]) for one in found if one["about"] == about]

    for name in ("topics", "cli", "train"):
        ((verdict, text),) = findings(name, name, "rights")
        assert (verdict, f"may do what {name} must" in text) == ("ok", True)
    assert [verdict for verdict, _ in findings("topics", "topics", "topics")] == ["ok"]
    missing = findings("cli", "train", "rights")
    assert {verdict for verdict, _ in missing} == {"wrong"}
    for right in ("Read on the groups train.dataset-versioned", "Write on the topics"):
        assert any(f"train must be allowed {right}" in text for _, text in missing)
    assert findings("nobody", "cli", "topics") == [("not checked", "this client may see none of them")]
    assert findings("nobody", "cli", "store")[0][0] == "ok"


def test_who_has_no_rights_is_told_so(secured: SecuredKafka, tmp_path: Path) -> None:
    lines = tmp_path / "tickets.jsonl"
    lines.write_text('{"ticket_id": "T-1", "body": "bell"}')
    nobody = secured.by_certificate("nobody")
    code, out, err = cli(nobody, "admin", "topics")
    assert (code, out) == (7, "")
    assert "grant its principal the rights that `tunewheel admin acls` prints" in err


def guest(name: str, settings: dict[str, Any]) -> tuple[Service, set[str]]:
    """Return a service of the test's own, without subscriptions yet, and the ids of events it handles."""
    return Service(name, ServiceSettings(**settings, store_url="memory://")), set()


def subscribe(service: Service, handled: set[str]) -> None:
    @service.on(TICKET_PUBLISHED)
    async def on_ticket(event: Envelope[Any]) -> None:
        handled.add(event.id)


@pytest.mark.parametrize(
    ("reads", "lost", "resource"),
    [
        (subscribe, "group", "{name}.ticket-published"),
        (lambda service, _: service.one_at_a_time(TICKET_PUBLISHED), "transactionalId", "{name}.active"),
        *(
            pytest.param(*right, marks=pytest.mark.nightly("matrices"))
            for right in (
                (subscribe, "topic", TICKET_PUBLISHED.name),
                (lambda service, _: service.view(TICKET_PUBLISHED), "topic", TICKET_PUBLISHED.name),
                (lambda service, _: service.one_at_a_time(TICKET_PUBLISHED), "group", "{name}.active"),
            )
        ),
    ],
    ids=["group of a subscription", "transactions of the active process", "topic of a subscription",
         "topic of a view", "group of the active process"],
)  # fmt: skip
async def test_a_right_is_missed_by_name_at_the_start_and_later(
    reads: Callable[[Service, set[str]], object],
    lost: str,
    resource: str,
    secured: SecuredKafka,
    project: str,
) -> None:
    def may(kind: str, resource: str, operation: str = "Read") -> dict[str, Any]:
        operation = "Write" if kind == "transactionalId" else operation
        return {"principal": f"User:tunewheel-{project}", "resource_type": kind, "resource_name": resource,
                "operations": [operation]}  # fmt: skip

    wanted = may(lost, resource.format(name=project))
    others = [may("topic", TICKET_PUBLISHED.dead_letter, "Write"), may("topic", TICKET_PUBLISHED.name)]
    others += [may("group", f"{project}.{what}") for what in ("ticket-published", "active")]
    others += [may("transactionalId", f"{project}.active")]
    called = "transactional id" if lost == "transactionalId" else lost
    reason = f"Kafka does not let this client use {called} {wanted['resource_name']}"
    service, handled = guest(project, secured.by_certificate(project))
    reads(service, handled)
    await allow(secured.operator, [acl for acl in others if acl != wanted])
    with capture_logs() as logs:
        serving = asyncio.create_task(Lifecycle(service).serve())
        await until(lambda: any(reason in str(line.get("error")) for line in logs))
    assert not service.health.ready
    await allow(secured.operator, [wanted])
    await until(lambda: service.health.ready)
    await forbid(secured.operator, [wanted])
    if lost == "transactionalId":  # Only a publish needs it.
        with pytest.raises(LeadershipLost):
            await service.publisher.send([KafkaRecord(TICKET_PUBLISHED.dead_letter, b"k", b"", {})])
    await asyncio.wait_for(serving, PATIENCE_SECONDS)
    assert isinstance(service.failure, NotAllowed)
    said = str(service.failure)
    # Kafka does not name the id where it refuses the next step of a transaction that has begun.
    assert reason in said or (lost == "transactionalId" and "use a transactional id" in said)


async def test_a_token_that_expires_ends_connections_and_loses_nothing(
    secured: SecuredKafka, project: str
) -> None:
    client = "tunewheel-ingest-briefly"
    secured.issuer.lifetimes[client] = 5  # a fifth of it is left for a connection that takes long
    service, handled = guest("ingest", secured.by_token("ingest-briefly"))
    subscribe(service, handled)
    view = service.view(topics.PROJECT_DECLARED)
    sent: set[str] = set()
    async with Bus(secured.broker.bootstrap_servers) as bus, running(service):
        await view.refresh()
        at_start = secured.issuer.asked[client]
        for n in itertools.count():
            data = TicketPublished(project=project, ticket_id=f"T-{n}", body="bell")
            event = new_event(data, source="/test")
            sent.add(event.id)
            await bus.publish(event)
            await until(lambda: sent <= handled)
            if secured.issuer.asked[client] > at_start + 1:  # nothing but ended connections needs a token
                break
            await asyncio.sleep(0.2)
        await view.refresh()
        await service.publish(event)
    assert service.failure is None
