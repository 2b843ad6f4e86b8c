"""One team floods every door; two others ask for little, and for that all the time.

Broker, ingest, curate and registry are the real ones. ``flood`` sends tickets over HTTP and to Kafka, asks
for dataset versions, and reports trained models, all the time. ``--ahead`` tickets lie on the log before the
first of the others. What counts is whether the others' work is done, and how much of the flood's was done in
between (its position), by the times of the log.

    make bench NAME=teams ARGS="--minutes 30"
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_testing.reading import read_records
from tunewheel_testing.specs import declared

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.integration.bus import Bus, process
from tests.integration.verdicts import trained

FLOOD, OTHERS = "flood", ("north", "south")
PER_MINUTE, BATCH = 600, 100
PAUSES = {"ticket": 5.0, "log": 5.0, "build": 60.0, "model": 15.0}
"""Seconds between two pieces of an other team's work, by door."""
ANSWERS = {
    "log": (topics.TICKET_PUBLISHED, (topics.RECORD_INGESTED,)),
    "build": (topics.DATASET_REQUESTED, (topics.DATASET_VERSIONED, topics.DATASET_REJECTED)),
    "model": (topics.TRAIN_COMPLETED, (topics.MODEL_REGISTERED,)),
}
"""By door: what is asked for on the log, and what answers it."""
SPEC = {"dataset": {"min_examples": 20, "build": {"min_new_records": 1_000_000_000}}}


def ticket(project: str, name: str) -> TicketPublished:
    words = hashlib.sha256(name.encode()).hexdigest()
    return TicketPublished(
        project=project, ticket_id=name, customer=name, validated_by="m.okafor",
        body=" ".join(words[at : at + 6] for at in range(0, 60, 6)),
        answer={"category": "horn" if int(words, 16) % 2 else "bell"},
    )  # fmt: skip


class Team:
    """What one project sends through each door, and what the doors answered."""

    def __init__(self, name: str, bus: Bus, ingest: str, client: httpx.AsyncClient) -> None:
        self.name = name
        self._bus, self._ingest, self._client = bus, ingest, client
        self._numbers = count()
        self.answers: dict[str, Counter[str]] = defaultdict(Counter)
        """By door: how often each status or word of refusal came."""

    async def ticket(self) -> None:
        body = ticket(self.name, f"H-{next(self._numbers)}").model_dump(mode="json", exclude_defaults=True)
        answer = await self._client.post(f"{self._ingest}/v1/tickets", json=body)
        self.answers["ticket"][str(answer.status_code)] += 1

    async def log(self, tickets: int = 1) -> None:
        made = (ticket(self.name, f"L-{next(self._numbers)}") for _ in range(tickets))
        await self._bus.publish(*(new_event(one, source="/bench") for one in made))
        self.answers["log"]["sent"] += tickets

    async def build(self) -> None:
        asked = DatasetRequested(
            project=self.name, reason=BuildReason.COMMAND, request=f"r-{next(self._numbers)}"
        )
        await self._bus.publish(new_event(asked, source="/bench"))
        self.answers["build"]["sent"] += 1

    async def model(self) -> None:
        await self._bus.publish(trained(self.name, next(self._numbers) + 1))
        self.answers["model"]["sent"] += 1


async def often(work: Callable[[], Awaitable[None]], pause: float, until: float) -> None:
    while time.monotonic() < until:
        await work()
        await asyncio.sleep(pause)


def position(asked: float, answered: float, flood: list[float]) -> int:
    """Return how many pieces of the flood's work were done in between. ``flood``: their sorted times."""
    return bisect(flood, answered) - bisect(flood, asked)


def summary(positions: list[int], asked: int) -> dict[str, Any]:
    found = {"asked": asked, "done": len(positions)}
    return found | ({"median": median(positions), "most": max(positions)} if positions else {})


async def on_the_log(servers: str) -> dict[str, Any]:
    """Return by door how the others' work on the log was answered."""
    wanted = {topic.name: topic for asked, answers in ANSWERS.values() for topic in (asked, *answers)}
    events: dict[str, list[tuple[int, Envelope[Any]]]] = defaultdict(list)
    async for record in read_records({"bootstrap_servers": servers}, list(wanted)):
        topic = wanted[record.position.topic]
        event = Envelope.from_kafka(topic.event, record.value, record.headers)
        events[topic.name].append((record.logged_ms or 0, event))
    found: dict[str, Any] = {}
    for door, (asked, answers) in ANSWERS.items():
        done = {event.causation_id: (at, event) for one in answers for at, event in events[one.name]}
        if door == "build":  # a command is answered by a request that names its records
            named = {e.id: e.causation_id for _, e in events[asked.name] if e.causation_id}
            done = {named.get(cause, cause): answer for cause, answer in done.items()}
        flood = sorted(at for at, event in done.values() if event.project == FLOOD)
        mine = [
            (at, e)
            for at, e in events[asked.name]
            if e.project in OTHERS and not (door == "build" and e.causation_id)
        ]
        positions = [position(at, done[e.id][0], flood) for at, e in mine if e.id in done]
        sent = sum(event.project == FLOOD for _, event in events[asked.name])
        found[door] = summary(positions, len(mine)) | {"flood sent": sent, "flood done": len(flood)}
    return found


async def measure(servers: str, folder: Path, minutes: float, ahead: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        names = (FLOOD, *OTHERS)
        port = free_port()
        own = {
            "ingest": {
                "TUNEWHEEL_PROJECT_EVENTS_PER_MINUTE": str(PER_MINUTE),
                "TUNEWHEEL_HTTP_PORT": str(port),
            }
        }
        for name in ("ingest", "curate", "registry"):
            settings = {"TUNEWHEEL_CACHE_DIR": str(folder / "cache"), "TUNEWHEEL_IDENTITY": "open"}
            log = folder / f"{name}.log"
            made = process(
                f"tunewheel_{name}.main", servers, folder / "store", log, **settings | own.get(name, {})
            )
            stack.enter_context(made)
        bus = await stack.enter_async_context(Bus(servers))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=600))
        await bus.publish(*(declared(name, **SPEC) for name in names))
        ingest = f"http://127.0.0.1:{port}"
        teams = {name: Team(name, bus, ingest, client) for name in names}
        for name in OTHERS:
            await teams[name].log(40)
        await ready(client, ingest)
        flood = teams[FLOOD]
        for _ in range(ahead // BATCH):
            await flood.log(BATCH)
        until = time.monotonic() + 60 * minutes
        floods = (
            *(often(flood.ticket, 0.01, until) for _ in range(4)),
            often(lambda: flood.log(BATCH), 1.0, until),
            often(flood.build, 1.0, until),
            often(flood.model, 0.5, until),
        )
        little = (
            often(getattr(teams[name], door), pause, until)
            for name in OTHERS
            for door, pause in PAUSES.items()
        )
        await asyncio.gather(*floods, *little)
        found = await settled(servers)
    return found | {"doors": {name: team.answers for name, team in teams.items()}}


async def ready(client: httpx.AsyncClient, url: str) -> None:
    while True:
        try:
            await client.get(f"{url}/openapi.json")
            return
        except httpx.ConnectError:
            await asyncio.sleep(0.5)


async def settled(servers: str, patience: float = 900.0) -> dict[str, Any]:
    """Return what the log says once all of the others' work is answered, or after ``patience`` seconds."""
    ends = time.monotonic() + patience
    while True:
        found = await on_the_log(servers)
        if all(of["done"] == of["asked"] for of in found.values()) or time.monotonic() > ends:
            return found
        await asyncio.sleep(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--ahead", type=int, default=5_000)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalKafka(Path(name) / "kafka", port=None) as broker,
    ):
        asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
        asked_of = (broker.bootstrap_servers, Path(name), asked.minutes, asked.ahead)
        found = asyncio.run(measure(*asked_of))
    write_report("teams", packages=("aiokafka",), contenders=found, ratios={}, minutes=asked.minutes)


if __name__ == "__main__":
    main()
