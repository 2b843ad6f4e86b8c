"""Records a snapshot of the version that is checked out.

    python -m tests.frozen.record tests/frozen/<name>

A small project turns twice. Sixty tickets, a document and a ticket that is refused lead to a first model in
production. It is asked some questions, and one answer is corrected. A person is erased. A second version
takes over. Later versions are held to what is recorded here: never record a snapshot anew, add another.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.upstream import DocumentPublished, ErasureRequested
from tunewheel_contracts.principal import Principal
from tunewheel_local.launch import Wheel
from tunewheel_local.wheel_secrets import LOCAL
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.gateway import GatewayClient, text_of
from tunewheel_testing.tiny import write_tiny_model

from ..chaos.small_loop import ENVIRONMENT, publish_file, served, spec_event
from ..integration.bus import Bus
from ..integration.wheels import turning
from .snapshot import read_log, read_state, save, settled

PROJECT = "frozen"
SERVICES = ("engine", "ingest", "curate", "train", "eval", "registry", "gateway", "monitor", "console")
BASE = "tiny-base"
"""The base model, below the folder in which the services run: a path that is the same on every machine."""
SOP = """# Bells

Oil the bell of a bicycle once every year, before winter comes.

# Horns

No oil for horns.
"""
QUESTIONS = 12


async def record(folder: Path) -> None:
    """Turn a small wheel twice in a temporary folder and save what it left in ``folder``."""
    target = folder.resolve()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.chdir(root)
        write_tiny_model(root / BASE)
        async with turning(root, SERVICES, environment=ENVIRONMENT, base_model=BASE) as (wheel, feed):
            await first_turn(wheel, feed)
            await production(wheel, feed)
            await second_turn(wheel, feed)
            await settled(wheel.bootstrap_servers)
            store = wheel.plan.var.root / "store"
            lines = await read_log(wheel.bootstrap_servers)
            state = await read_state(Endpoint.of("registry", wheel.plan.var), store, PROJECT)
            save(target, lines, store, state)


async def first_turn(wheel: Wheel, feed: EventFeed) -> None:
    sop = DocumentPublished(
        project=PROJECT, document_id="sop.md", title="Bells", content=SOP, media_type="text/markdown"
    )
    spec = spec_event(BASE, project=PROJECT).data.spec
    rollout = spec.rollout.model_copy(
        update={"canary": spec.rollout.canary.model_copy(update={"enabled": False})}
    )
    drift = spec.drift.model_copy(update={"enabled": False})
    declared = spec_event(BASE, project=PROJECT).data.model_copy(
        update={"spec": spec.model_copy(update={"rollout": rollout, "drift": drift})}
    )
    async with Bus(wheel.bootstrap_servers) as bus:
        await bus.publish(new_event(declared, source="/test"), new_event(sop, source="/test"))
        refused = new_event(sop, source="/test").to_kafka()
        await bus.send(topics.TICKET_PUBLISHED.name, b"broken", b'{"ticket_id": ', refused.headers)
    await publish_file(Endpoint.of("ingest", wheel.plan.var), project=PROJECT)
    await served(feed, project=PROJECT)


async def production(wheel: Wheel, feed: EventFeed) -> None:
    async with GatewayClient(Endpoint.of("gateway", wheel.plan.var)) as gateway:
        await gateway.until_served(PROJECT, patience=120)
        for number in range(QUESTIONS):
            answer = await gateway.ask(PROJECT, f"Is number {number} a bell?", max_tokens=4)
            assert text_of(answer) is not None
        await gateway.correct(PROJECT, answer["id"], {"category": "bell"}, by="expert@example.com")
    await feed.until(
        lambda: len(feed.by_topic[topics.INFERENCE_COMPLETED.name]) == QUESTIONS,
        patience=60,
        what="completions",
    )
    await feed.first(topics.RECORD_INGESTED, lambda e: e.data.kind == "feedback", patience=60)


async def second_turn(wheel: Wheel, feed: EventFeed) -> None:
    erased = ErasureRequested(
        project=PROJECT, erasure_id="leaver", customer="customer-3", requested_by="privacy"
    )
    command = DatasetRequested(
        project=PROJECT, reason=BuildReason.COMMAND, request="after an erasure",
        principal=Principal(name=LOCAL),
    )  # fmt: skip
    signer = CommandKeys.of_wheel(wheel.plan.var.identity)
    async with Bus(wheel.bootstrap_servers) as bus:
        await bus.publish(new_event(erased, source="/test"))
        await feed.first(topics.ERASURE_COMPLETED, patience=60)
        await bus.publish(signer.sign(new_event(command, source="/tunewheel/console")))

    def promotions() -> list[Envelope[Any]]:
        events = feed.by_topic[topics.MODEL_PROMOTED.name]
        return [event for event in events if event.data.to_stage is Stage.PRODUCTION]

    await feed.until(lambda: len(promotions()) == 2, patience=300, what="the second promotion")


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1])))
