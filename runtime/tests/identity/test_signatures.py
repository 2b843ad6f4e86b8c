from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.identity.command_keys import (
    SIGNERS,
    InvalidSigningKey,
    add_key,
    read_key_set,
    read_public_keys,
    retire_key,
)
from tunewheel_runtime.identity.signatures import Look, Signatures
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.log import Place, Span
from tunewheel_runtime.publishing import Tombstone
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.forgeries import (
    ADA,
    COMMANDS,
    FORGED_DATA,
    FORGERIES,
    UPSTREAM,
    by_an_unknown_key,
    command,
    door_of,
    upstream,
    with_data,
    with_signature,
)


@pytest.fixture
def keys(tmp_path: Path) -> CommandKeys:
    return CommandKeys(tmp_path)


def read(signatures: Signatures, record: KafkaRecord, *, offset: int = 7) -> Envelope[Any]:
    """Decode a record and check it, as a service does."""
    topic = BY_NAME[record.topic]
    event = Envelope.from_kafka(topic.event, record.value, record.headers)
    position = Position(record.topic, 0, offset)
    return signatures.check(topic, event, Undecoded(position, record.key, record.value, record.headers))


def ending_at(end: int) -> Look:
    async def look(names: list[str]) -> dict[Place, Span]:
        return {(name, 0): Span(0, end) for name in names}

    return look


def test_every_command_that_a_person_may_give_is_signed() -> None:
    assert {topic.name for topic in TOPICS if topic.is_command} == set(COMMANDS)
    assert {topic.name for topic in TOPICS if topic.is_signed} == {*COMMANDS, *UPSTREAM}
    assert SIGNERS == ("console", "curate", "eval", "ingest", "registry", "serve-gateway")


@pytest.mark.parametrize("topic", [BY_NAME[name] for name in COMMANDS], ids=lambda topic: topic.name)
def test_a_command_counts_by_the_signature_of_each_service_that_publishes_it(
    topic: TopicSpec, keys: CommandKeys
) -> None:
    for service in topic.producers:
        sent = command(topic.name, "desk")
        got = read(keys.of("train"), keys.of(service).sign(sent).to_kafka())
        assert (got.id, got.data.principal) == (sent.id, ADA)


@pytest.mark.parametrize("topic", COMMANDS)
def test_a_forged_command_is_refused(topic: str, keys: CommandKeys) -> None:
    record = keys.sign(command(topic, "desk")).to_kafka()
    train, open_ = keys.of("train"), keys.of("train", identity="open")
    read(train, record)
    for forge in FORGERIES:
        with pytest.raises(InvalidEvent) as refused:
            read(train, forge(record, keys))
        assert refused.value.field == "signature", forge.__name__
        read(open_, forge(record, keys))  # nothing is asked


@pytest.mark.parametrize("topic", UPSTREAM)
def test_upstream_data_counts_as_its_door_signed_it(topic: str, keys: CommandKeys) -> None:
    for service in {*BY_NAME[topic].producers} - {"upstream"}:
        sent = upstream(topic, "desk")
        got = read(keys.of("ingest"), keys.sealed(sent, by=service))
        assert (got.data, got.signed_by) == (sent.data, service)
        assert (got.data.authority, got.data.principal) == (Trust.EXPERT, ADA)


@pytest.mark.parametrize("topic", UPSTREAM)
def test_forged_upstream_data_is_refused(topic: str, keys: CommandKeys) -> None:
    record = keys.sealed(upstream(topic, "desk", authority="unverified"), by=door_of(topic))
    ingest = keys.of("ingest")
    read(ingest, record)  # A signature that was valid once makes no other event valid.
    for forge in FORGED_DATA:
        with pytest.raises(InvalidEvent) as refused:
            read(ingest, forge(record, keys))
        assert refused.value.field == "signature", forge.__name__


@pytest.mark.parametrize("topic", UPSTREAM)
async def test_unsigned_upstream_data_says_nothing_of_its_caller(topic: str, keys: CommandKeys) -> None:
    store = ObjectStore("memory://")
    await store.first(f"commands/signed-from/{topic}.json", b'{"0": 5}')
    ingest = keys.of("ingest", store)
    await ingest.begin([BY_NAME[topic]], ending_at(9))
    record = upstream(topic, "desk").to_kafka()
    older, newer = read(ingest, record, offset=4), read(ingest, record, offset=5)
    assert (newer.data.authority, newer.data.principal, newer.signed_by) == (None, None, None)
    assert (older.data.authority, older.data.principal) == (Trust.EXPERT, None), "it means what it meant"
    forged = with_signature(upstream(topic, "desk", authority="unverified").to_kafka(), "a.b.c")
    obeyed = read(keys.of("ingest", identity="open"), forged)
    assert (obeyed.data.authority, obeyed.data.principal, obeyed.signed_by) == (Trust.EXPERT, None, None)


def test_an_upload_costs_a_signature_for_every_thirty_two_events(keys: CommandKeys) -> None:
    sent = [upstream("ticket.published", "desk", ticket_id=f"T-{n}") for n in range(70)]
    records, ingest = [event.to_kafka() for event in sent], keys.of("ingest")
    ingest.seal([*records, Tombstone("project.declared", b"desk")])
    assert len({record.headers["ce_signature"] for record in records}) == 3
    assert [read(ingest, record).data for record in records] == [event.data for event in sent]


def test_a_message_that_is_written_again_keeps_its_signature_or_has_none(keys: CommandKeys) -> None:
    ingest, claims = keys.of("ingest"), {"authority": "expert", "validated_by": "eve"}
    unsigned = replace(upstream("ticket.published", "desk", **claims).to_kafka(), is_copy=True)
    signed = replace(keys.sealed(upstream("ticket.published", "desk"), by="ingest"), is_copy=True)
    before = signed.headers["ce_signature"]
    ingest.seal([unsigned, signed])
    assert ("ce_signature" in unsigned.headers, signed.headers["ce_signature"]) == (False, before)
    assert read(ingest, unsigned).data.authority is None


def test_a_signature_of_data_is_none_of_a_command_and_the_other_way_round(keys: CommandKeys) -> None:
    data = keys.sealed(upstream("example.published", "desk"), by="console")
    asked = keys.sign(command("dataset.requested", "desk"))
    of_data = data.headers["ce_signature"].decode()
    for moved in (
        with_signature(asked.to_kafka(), of_data), with_signature(data, asked.data.signature)
    ):  # fmt: skip
        with pytest.raises(InvalidEvent, match="signature is not of this event"):
            read(keys.of("curate"), moved)


def test_what_is_not_signed_is_published_as_it_is(keys: CommandKeys) -> None:
    data = BY_NAME["train.progressed"].event.model_construct(project="desk", run_id="run-1")
    told = new_event(data, source="/tunewheel/train")
    assert keys.of("console").sign(told) is told


def test_a_service_signs_what_it_passes_on_itself(keys: CommandKeys) -> None:
    """Curate answers a person's request by a copy that names the records."""
    asked = keys.of("console").sign(command("dataset.requested", "desk"))
    own = new_event(asked.data.model_copy(update={"request": asked.id}), source="/tunewheel/curate")
    read(keys.of("curate"), keys.of("curate").sign(own).to_kafka())
    bare = keys.of("curate", identity="open", signing_key=None).sign(own)
    assert bare.data.signature is None, "a signature that does not fit is not passed on"


async def test_an_unsigned_command_counts_below_the_offsets_of_the_upgrade(keys: CommandKeys) -> None:
    store = ObjectStore("memory://")
    await store.first("commands/signed-from/train.control.json", b'{"0": 5}')
    train = keys.of("train", store)
    await train.begin([BY_NAME["train.control"]], ending_at(9))
    bare = command("train.control", "desk").to_kafka()
    read(train, bare, offset=4)
    for offset, topic in ((5, "train.control"), (4, "eval.requested")):
        with pytest.raises(InvalidEvent):
            read(train, command(topic, "desk").to_kafka(), offset=offset)
    with pytest.raises(InvalidEvent):
        read(train, with_data(bare, signature="a.b.c"), offset=4)


@pytest.mark.parametrize("end", [0, 3])
async def test_the_offsets_of_a_topic_that_was_made_anew_are_of_no_earlier_release(
    keys: CommandKeys, end: int
) -> None:
    store, topics = ObjectStore("memory://"), [BY_NAME["train.control"]]
    for ends in (5, 9, end):
        await keys.of("eval", store).begin(topics, ending_at(ends))
    train = keys.of("train", store)
    await train.begin(topics, ending_at(9))  # what came after is not taken for older
    predating = [n for n in range(9) if train.predates(Position("train.control", 0, n))]
    assert predating == list(range(end))


def test_what_a_key_signed_before_it_was_retired_counts_for_ever_and_a_new_key_at_once(
    keys: CommandKeys,
) -> None:
    train, old = keys.of("train"), keys.of("console")
    record = old.sign(command("train.control", "desk")).to_kafka()
    read(train, record, offset=4)
    kid = json.loads(keys.private["console"])["kid"]
    for ends in (4, 9):  # retiring it again changes nothing
        retire_key(keys.file, kid, {"train.control": {"0": ends}})
    new = add_key(keys.file, "console")
    read(train, keys.of("console", signing_key=new).sign(command("train.control", "desk")).to_kafka())
    for reader in (train, keys.of("train")):
        read(reader, record, offset=3)
        with pytest.raises(InvalidEvent, match=f"is by {kid}, which was retired"):
            read(reader, record, offset=4)


def test_a_key_that_an_earlier_release_retired_counts_everywhere(keys: CommandKeys) -> None:
    record = keys.of("console").sign(command("train.control", "desk")).to_kafka()
    retire_key(keys.file, json.loads(keys.private["console"])["kid"], None)
    read(keys.of("train"), record, offset=1_000)
    assert sum(key.retired is not None for key in read_key_set(keys.file).keys) == 1


def test_an_invalid_file_leaves_the_keys_that_were_read(keys: CommandKeys) -> None:
    train = keys.of("train")
    record = keys.of("console").sign(command("train.control", "desk")).to_kafka()
    forged = by_an_unknown_key(record, keys)
    keys.file.write_text("{")
    with pytest.raises(InvalidEvent):
        read(train, forged)
    read(train, record)


@pytest.mark.parametrize(
    ("service", "settings", "named"),
    [
        ("train", {"signing_keys_file": None}, "TUNEWHEEL_SIGNING_KEYS_FILE"),
        ("train", {"signing_keys_file": Path("nowhere.json")}, "nowhere.json cannot be read"),
        ("console", {"signing_key": None}, "TUNEWHEEL_SIGNING_KEY to its private key"),
        ("console", {"signing_key": "{}"}, "TUNEWHEEL_SIGNING_KEY: must be a private JSON Web Key"),
    ],
    ids=str,
)
def test_a_service_without_its_keys_does_not_start(
    keys: CommandKeys, service: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(NoIdentity, match=named):
        keys.of(service, **settings).require_keys()
    keys.of(service).require_keys()
    keys.of(service, **settings, identity="open").require_keys()


@pytest.mark.parametrize("reads", [True, False])
async def test_only_a_process_that_reads_or_publishes_commands_needs_keys(reads: bool) -> None:
    desk = Service("desk", ServiceSettings(identity="required", store_url="memory://"))
    desk.on(BY_NAME["train.control" if reads else "train.started"])(lambda _: None)
    if not reads:
        desk.stop()
        return await Lifecycle(desk).serve()
    with pytest.raises(NoIdentity, match="desk cannot tell who published an event"):
        await Lifecycle(desk).serve()


def test_a_key_of_another_service_or_of_no_file_does_not_start(keys: CommandKeys) -> None:
    for key in (keys.private["eval"], add_key(keys.file.with_name("other.json"), "console")):
        with pytest.raises(NoIdentity, match="nobody would believe its events"):
            keys.of("console", signing_key=key).require_keys()


@pytest.mark.parametrize(
    "content",
    [
        '{"keys": [{"kid": "a"}]}',
        '{"keys": [{"kid": "a", "service": "console", "kty": "oct", "k": "c2VjcmV0"}]}',
        '{"keys": [{"kid": "a", "service": "console", "kty": "OKP", "crv": "Ed25519", "x": "short"}]}',
        '{"keys": [{"kid": "a", "service": "nobody", "kty": "OKP", "crv": "Ed25519", "x": ""}]}',
        "[]",
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidSigningKey, match=r"TUNEWHEEL_SIGNING_KEYS_FILE .*keys\.json"):
        read_public_keys(path)


def test_a_private_key_or_a_double_one_is_no_public_key(keys: CommandKeys) -> None:
    private = json.loads(keys.private["console"]) | {"service": "console"}
    entries = json.loads(keys.file.read_text())["keys"]
    for wrong in ([private], [entries[0], entries[0]]):
        keys.file.write_text(json.dumps({"keys": wrong}))
        with pytest.raises(InvalidSigningKey, match=r"is a private key|occurs twice"):
            read_public_keys(keys.file)


def test_only_services_that_publish_commands_get_keys(keys: CommandKeys) -> None:
    for service in ("monitor", "cli"):
        with pytest.raises(InvalidSigningKey, match="console, curate, eval, ingest, registry, serve-gateway"):
            add_key(keys.file, service)
    with pytest.raises(InvalidSigningKey, match="has no key 'none'"):
        retire_key(keys.file, "none", {})
