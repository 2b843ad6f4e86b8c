"""Commands and upstream data that were written straight to Kafka: a real broker, and every service that obeys
commands or believes data."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tunewheel_cli.frame import app
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import TrainControl
from tunewheel_contracts.identity import content_sha256
from tunewheel_curate.main import make_app as make_curate
from tunewheel_curate.settings import Settings as CurateSettings
from tunewheel_eval.main import make_app as make_eval
from tunewheel_eval.settings import Settings as EvalSettings
from tunewheel_ingest.main import make_app as make_ingest
from tunewheel_ingest.settings import Settings as IngestSettings
from tunewheel_monitor.main import make_app as make_monitor
from tunewheel_monitor.settings import Settings as MonitorSettings
from tunewheel_registry.main import make_app as make_registry
from tunewheel_registry.settings import Settings as RegistrySettings
from tunewheel_runtime.service import Service
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.forgeries import ADA, COMMANDS, FORGED_DATA, FORGERIES, command, upstream
from tunewheel_testing.specs import declared
from tunewheel_train.main import make_app as make_train
from tunewheel_train.runs.controls import Controls
from tunewheel_train.settings import Settings as TrainSettings
from typer.testing import CliRunner

from .bus import Bus, running, until

pytestmark = pytest.mark.integration
MADE: dict[str, tuple[Callable[[Any], Service], Any]] = {
    "curate": (make_curate, CurateSettings),
    "eval": (make_eval, EvalSettings),
    "monitor": (make_monitor, MonitorSettings),
    "registry": (make_registry, RegistrySettings),
    "train": (make_train, TrainSettings),
}
INGEST: dict[str, tuple[Callable[[Any], Service], Any]] = {"ingest": (make_ingest, IngestSettings)}


class House:
    """Services that obey commands, and their keys. Ada may do everything."""

    def __init__(self, kafka: str, folder: Path) -> None:
        keys = folder / "keys.yaml"
        roles = ["operator", "reviewer"]
        keys.write_text(yaml.safe_dump({"keys": {"ada": {"sha256": content_sha256(b"ada"), "roles": roles}}}))
        self.signing = CommandKeys(folder)
        self._settings: dict[str, Any] = {
            "bootstrap_servers": kafka, "store_url": (folder / "store").as_uri(),
            "cache_dir": folder / "cache", "identity": "required", "api_keys_file": keys,
        }  # fmt: skip

    def service(self, name: str, **settings: Any) -> Service:
        make, settings_of = (MADE | INGEST)[name]
        return make(settings_of(**self._settings, **self.signing.settings(name), **settings))


@pytest.fixture
def house(kafka: str, tmp_path: Path) -> House:
    return House(kafka, tmp_path)


@pytest.fixture
def obeyed(project: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs of the commands that train obeys."""
    runs: list[str] = []
    apply = Controls.apply

    def told(controls: Controls, event: Envelope[TrainControl]) -> None:
        runs.extend([event.data.run_id] if event.project == project else [])
        apply(controls, event)

    monkeypatch.setattr(Controls, "apply", told)
    return runs


async def test_of_a_hundred_forged_commands_none_is_obeyed_and_each_is_told(
    kafka: str, house: House, project: str, obeyed: list[str]
) -> None:
    signed = {topic: house.signing.sign(command(topic, project)) for topic in COMMANDS}
    forged = [forge(event.to_kafka(), house.signing) for event in signed.values() for forge in FORGERIES]
    assert len(forged) >= 100
    async with Bus(kafka) as bus, contextlib.AsyncExitStack() as stack:
        for name in MADE | INGEST:
            await stack.enter_async_context(running(house.service(name)))
        await bus.publish(declared(project))
        for record in forged:
            await bus.send(record.topic, record.key, record.value, record.headers)
        for topic in COMMANDS:
            letters = await bus.dead_letters(topic, len(FORGERIES), about=project)
            assert {letter.field for letter in letters} == {"signature"}
        assert obeyed == []
        # The same commands, signed by the door: a forged one that came first does not stand in their way.
        await bus.publish(*signed.values())
        (refused,) = await bus.collect(topics.COMMAND_REFUSED, 1, where=lambda e: e.project == project)
        assert (refused.data.command_id, refused.data.field) == (signed["model.commanded"].id, "model_id")
        (scored,) = await bus.collect(topics.INFERENCE_SCORED, 1, where=lambda e: e.project == project)
        assert scored.causation_id == signed["answers.compared"].id
        named = await bus.collect(topics.DATASET_REQUESTED, 1, where=lambda e: e.source == "/tunewheel/curate"
                                  and e.project == project)  # fmt: skip
        assert named[0].data.request == signed["dataset.requested"].id
        assert named[0].data.signature is not None
        await until(lambda: obeyed == ["run-1"])
        for topic, field in (("eval.requested", "run_id"), ("review.answered", "review_id"),
                             ("review.submitted", "run_id")):  # fmt: skip
            *_, letter = await bus.dead_letters(topic, len(FORGERIES) + 1, about=project)
            assert letter.field == field, "it was read as a command about a run that does not exist"


async def test_commands_of_before_the_upgrade_count_unsigned_and_those_of_a_retired_key_for_ever(
    kafka: str, house: House, project: str, obeyed: list[str]
) -> None:
    def sent(run: str) -> Envelope[TrainControl]:
        return command("train.control", project, run_id=run)

    async with Bus(kafka) as bus:
        await bus.publish(sent("before"))
        async with running(house.service("train")):
            assert obeyed == ["before"]
            await bus.publish(sent("after"), house.signing.sign(sent("signed")))
            (letter,) = await bus.dead_letters("train.control", 1, about=project)
            assert (letter.field, json.loads(letter.value)["run_id"]) == ("signature", "after")
            await until(lambda: obeyed == ["before", "signed"])
        kid = json.loads(house.signing.private["console"])["kid"]
        words = ["retire", kid, "--file", str(house.signing.file), "--bootstrap-servers", kafka]
        done = await asyncio.to_thread(CliRunner().invoke, app, ["admin", "signing-keys", *words])
        assert done.exit_code == 0, done.output
        obeyed.clear()
        async with running(house.service("train")):  # whose replay is complete
            assert obeyed == ["before", "signed"]
            await bus.publish(house.signing.sign(sent("late")))
            *_, letter = await bus.dead_letters("train.control", 2, about=project)
            assert (letter.field, json.loads(letter.value)["run_id"]) == ("signature", "late")


async def test_of_forged_tickets_none_is_an_experts_and_none_names_a_caller(
    kafka: str, house: House, project: str
) -> None:
    def ticket(name: str, authority: str = "expert") -> Envelope[Any]:
        return upstream("ticket.published", project, ticket_id=name, authority=authority)

    async with Bus(kafka) as bus, running(house.service("ingest")):
        await bus.publish(declared(project))
        await bus.publish(*(ticket(f"T-{n}") for n in range(30)), upstream("example.published", project))
        lowered = house.signing.sealed(ticket("lowered", "unverified"), by="ingest")
        signed = house.signing.sealed(ticket("signed"), by="ingest")
        for record in (lowered, signed, *(forge(lowered, house.signing) for forge in FORGED_DATA)):
            await bus.send(record.topic, record.key, record.value, record.headers)
        letters = await bus.dead_letters("ticket.published", len(FORGED_DATA), about=project)
        assert {letter.field for letter in letters} == {"signature"}
        found = await bus.collect(topics.RECORD_INGESTED, 33, where=lambda event: event.project == project)
    named = {event.data.source_id: event.data for event in found}
    assert {name: record.principal for name, record in named.items() if record.trust == "expert"} == {
        "signed": ADA, "e-1": None,  # The topic of examples grants as much to whoever may write it.
    }  # fmt: skip
    assert {name for name, record in named.items() if record.authority} == {"lowered", "signed"}
    assert named["lowered"].principal == ADA
    assert all(named[f"T-{n}"].principal is None for n in range(30))


async def test_a_sources_answers_are_signed_by_ingest_and_count_as_its_spec_grants(
    kafka: str, house: House, project: str
) -> None:
    topic, trusts = f"crm.{project}", ("expert", "unverified")
    reads = {"ticket_id": "no", "body": "text", "answer": "reply", "validated_by": "by"}
    sources = [
        {"name": trust, "topic": f"{topic}.{trust}", "kind": "ticket", "map": reads, "trust": trust}
        for trust in trusts
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(source["topic"], 1, 1) for source in sources])
    await admin.close()

    def forgery(name: str, authority: str = "expert") -> Envelope[Any]:
        principal = {"name": f"{project}/expert", "issuer": "source"}
        return upstream("ticket.published", project, ticket_id=name, principal=principal, authority=authority)

    service = house.service("ingest", source_topics=f"{topic}.*")
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project, sources=sources))
        for number, trust in enumerate(trusts * 2):  # What a record says of its own trust counts for nothing.
            row = {"no": f"{trust}-{number}", "text": "b", "reply": "a", "by": "eve", "authority": "expert",
                   "principal": {"name": "ada"}}  # fmt: skip
            await bus.send(f"{topic}.{trust}", b"", json.dumps(row).encode(), {})
        await bus.publish(*(forgery(f"unsigned-{n}") for n in range(5)))
        sealed = house.signing.sealed(forgery("changed", "unverified"), by="ingest")
        for forge in FORGED_DATA:
            record = forge(sealed, house.signing)
            await bus.send(record.topic, record.key, record.value, record.headers)
        letters = await bus.dead_letters("ticket.published", len(FORGED_DATA), about=project)
        assert {letter.field for letter in letters} == {"signature"}
        found = await bus.collect(topics.RECORD_INGESTED, 9, where=lambda event: event.project == project)
    said = {event.data.source_id: event.data for event in found}
    assert {name for name in said if not name.startswith("unsigned")} == {
        "expert-0", "unverified-1", "expert-2", "unverified-3",
    }  # fmt: skip
    for name, record in said.items():
        of, who = name.partition("-")[0], record.principal
        if of == "unsigned":
            assert (record.trust, who, record.authority) == ("unverified", None, None)
        else:
            assert (record.trust, record.authority) == (of, of)
            assert (who.name, who.issuer) == (f"{project}/{of}", "source")


async def test_tickets_of_before_the_upgrade_mean_what_they_meant(
    kafka: str, house: House, project: str
) -> None:
    async def published(bus: Bus, name: str) -> None:
        await bus.publish(upstream("ticket.published", project, ticket_id=name))

    async with Bus(kafka) as bus:
        await bus.publish(declared(project))
        await published(bus, "before")
        async with running(house.service("ingest")):
            await published(bus, "after")
            found = await bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.project == project)
    assert {event.data.source_id: event.data.trust for event in found} == {
        "before": "expert", "after": "unverified",
    }  # fmt: skip
