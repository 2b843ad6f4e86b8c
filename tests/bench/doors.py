"""What the teams of ``teams.py`` send through each door, and what a door answers at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.identity import content_sha256
from tunewheel_local.connection import Connection
from tunewheel_runtime.service import Position
from tunewheel_runtime.view import LogReader
from tunewheel_testing.datasets import put_dataset, versioned
from tunewheel_testing.log import wrap
from tunewheel_testing.specs import small_spec

from tests.integration.bus import Bus
from tests.integration.evaluations import Ground, example

ENDS = (
    topics.DATASET_REJECTED,
    topics.TRAIN_FAILED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
)
"""Each of these ends a turn: a build, the training on its version, the evaluation of that model."""
BETWEEN = (topics.DATASET_REQUESTED, topics.DATASET_VERSIONED, topics.TRAIN_COMPLETED)
LONGEST_TURN_SECONDS = 900.0
BATCH = 50
"""Tickets of a burst."""


def spec(base: str) -> dict[str, Any]:
    """Return what every team declares: builds on request alone, short trainings, and a bar that no random
    model passes, so that none is rolled out."""
    return {
        "base_model": base,
        "dataset": {"min_examples": 20, "build": {"min_new_records": 10**9, "quiet_seconds": None}},
        "train": {
            "rank": 4, "alpha": 8, "learning_rate": 1e-3, "epochs": 1.0, "batch_size": 8,
            "micro_batch_size": 8, "max_tokens": 512,
        },
        "criteria": [{"metric": "valid_output", "minimum": 0.99}],
        "rollout": {"undecided": {"enabled": False}},
    }  # fmt: skip


def ticket(project: str, name: str, *, answered: bool) -> TicketPublished:
    words = hashlib.sha256(name.encode()).hexdigest()
    category = "horn" if int(words, 16) % 2 else "bell"
    by_expert = {"answer": {"category": category}, "validated_by": "m.okafor"} if answered else {}
    body = " ".join(words[at : at + 6] for at in range(0, 60, 6))
    return TicketPublished.model_validate(
        {"project": project, "ticket_id": name, "customer": name, "body": body} | by_expert
    )


class Ends:
    """Follows turns on the log to their ends."""

    def __init__(self, servers: str) -> None:
        settings = Connection(bootstrap_servers=servers).settings()
        self._causes: dict[str, str | None] = {}
        """By event: its cause."""
        self._ended: dict[str, list[str]] = defaultdict(list)
        """By project: the events that ended a turn."""
        self._reader = LogReader(settings, (*BETWEEN, *ENDS), self._take, failed=self._fail)
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()

    async def _take(self, event: Envelope[Any], _: Position) -> None:
        self._causes[event.id] = event.causation_id
        if event.data.type in {topic.name for topic in ENDS}:
            self._ended[event.project].append(event.id)

    def _fail(self, error: BaseException) -> None:
        self._failure = error

    def _chain(self, name: str | None) -> Iterator[str]:
        while name is not None:
            yield name
            name = self._causes.get(name)

    async def after(self, first: Envelope[Any]) -> bool:
        """Return whether the turn that began with ``first`` ended in time."""
        gives_up = time.monotonic() + LONGEST_TURN_SECONDS
        while time.monotonic() < gives_up:
            if self._failure is not None:
                raise self._failure
            if any(first.id in self._chain(end) for end in self._ended[first.project]):
                return True
            await asyncio.sleep(0.5)
        return False


class Doors(NamedTuple):
    """Where the doors are: URLs, the log, and the store with the tiny base model."""

    ingest: str
    gateway: str
    bus: Bus
    ends: Ends
    ground: Ground
    client: httpx.AsyncClient


@dataclass
class Team:
    """One project. One ticket of ``answered_every`` has an answer."""

    name: str
    doors: Doors
    answered_every: int = 1
    answers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By door: how often each status or word of refusal came."""
    chats: list[tuple[float, float]] = field(default_factory=list)
    """When each completion was asked for, and when it was answered, in milliseconds."""
    _numbers: count[int] = field(default_factory=count)

    def _ticket(self, kind: str) -> TicketPublished:
        number = next(self._numbers)
        return ticket(self.name, f"{kind}-{number}", answered=number % self.answered_every == 0)

    async def ticket(self) -> None:
        body = self._ticket("H").model_dump(mode="json", exclude_defaults=True)
        answer = await self.doors.client.post(f"{self.doors.ingest}/v1/tickets", json=body)
        self.answers["ticket"][str(answer.status_code)] += 1

    async def log(self, tickets: int = 1) -> None:
        made = [self._ticket("L") for _ in range(tickets)]
        await self.doors.bus.publish(*(new_event(one, source="/bench") for one in made))
        self.answers["log"]["sent"] += tickets

    async def burst(self) -> None:
        await self.log(BATCH)

    async def build(self) -> Envelope[Any]:
        """Ask for a dataset version of the records so far."""
        request = f"r-{next(self._numbers)}"
        asked = DatasetRequested(project=self.name, reason=BuildReason.COMMAND, request=request)
        return await self._publish("build", new_event(asked, source="/bench"))

    async def turn(self) -> None:
        """Ask for a version, and return once the model that was trained on it has its verdict."""
        await self._end("turn", await self.build())

    async def judged(self) -> None:
        """Publish a trained model, and return once it has its verdict."""
        await self._end("judged", await self.model())

    async def _end(self, door: str, first: Envelope[Any]) -> None:
        in_time = await self.doors.ends.after(first)
        self.answers[door]["ended" if in_time else "given up"] += 1

    async def _publish(self, door: str, event: Envelope[Any]) -> Envelope[Any]:
        await self.doors.bus.publish(event)
        self.answers[door]["sent"] += 1
        return event

    async def train(self) -> None:
        """Publish a version as curate would: training begins with it."""
        name = f"ds-{self.name}-{next(self._numbers)}"
        rows = [example(n) for n in range(24)]
        ground, declared = self.doors.ground, small_spec(self.name, **spec(str(self.doors.ground.base.path)))
        version = await put_dataset(
            ground.store, declared, dataset_id=name, train=rows, rows_sha256=content_sha256(name)
        )
        await self._publish("train", wrap(versioned(*version)))

    async def model(self) -> Envelope[Any]:
        """Publish a trained model as train would: it is registered, and evaluated."""
        ground, run = self.doors.ground, f"{next(self._numbers):012x}"
        event = await ground.trained(self.name, run, **spec(str(ground.base.path)))
        return await self._publish("model", event)

    async def chat(self) -> int:
        """Ask the project's model; return the status."""
        asked = time.time() * 1000
        body = {"model": self.name, "messages": [{"role": "user", "content": "ring"}], "max_tokens": 8}
        headers = {"authorization": f"Bearer {key_of(self.name)}"}
        url = f"{self.doors.gateway}/v1/chat/completions"
        answer = await self.doors.client.post(url, json=body, headers=headers)
        self.answers["gateway"][str(answer.status_code)] += 1
        if answer.is_success:
            self.chats.append((asked, time.time() * 1000))
        return answer.status_code


def key_of(project: str) -> str:
    return f"k-{project}"


def write_keys(path: Path, projects: Sequence[str]) -> Path:
    """Write a file of keys for the gateway, one for the application of each team."""
    sums = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in projects}
    keys = {name: {"sha256": one, "projects": [name]} for name, one in sums.items()}
    path.write_text(json.dumps({"keys": keys}))
    return path
