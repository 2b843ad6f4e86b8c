"""One turn of a small wheel: sixty tickets over HTTP, a model of a few ten thousand weights, real stages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import polars as pl
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.topics import TopicSpec
from tunewheel_curate.records.table import RecordTable
from tunewheel_local.launch import Wheel
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.specs import declared

from ..integration.bus import Bus

PROJECT = "chaos"
SERVICES = ("ingest", "curate", "train", "eval", "registry")
COUNT = 60
PATIENCE_SECONDS = 900.0

# Steps, rows and lines are told often, so that there is a middle to be hit.
ENVIRONMENT = {
    "TUNEWHEEL_PROGRESS_SECONDS": "0",
    "TUNEWHEEL_PUBLISH_BATCH": "5",
    "TUNEWHEEL_EVAL_BATCH_SIZE": "4",
    "TUNEWHEEL_POLICY_SECONDS": "0.1",
    "TUNEWHEEL_TRAIN_DTYPE": "float32",
    "TUNEWHEEL_TRAIN_THREADS": "1",
    "TUNEWHEEL_EVAL_THREADS": "1",
}

CAUSED = (
    topics.TICKET_PUBLISHED,
    topics.RECORD_INGESTED,
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.TRAIN_COMPLETED,
    topics.EVAL_PASSED,
    topics.MODEL_REGISTERED,
    topics.MODEL_PROMOTED,
)
"""Topics whose events follow from causes alone: every run of the loop must put the same ones on the log."""
REFUSALS = (topics.DATASET_REJECTED, topics.TRAIN_FAILED, topics.EVAL_FAILED, topics.MODEL_ROLLEDBACK)


def spec_event(base_model: str, *, project: str = PROJECT) -> Envelope[Any]:
    """Declare a project that any model passes, and that builds once all tickets are there."""
    return declared(
        project,
        base_model=base_model,
        dataset={"min_examples": 20, "build": {"min_new_records": COUNT, "quiet_seconds": None}},
        train={
            "rank": 4, "alpha": 8, "learning_rate": 5e-3, "epochs": 8.0, "batch_size": 8,
            "micro_batch_size": 8, "checkpoint_steps": 10, "max_tokens": 512,
        },
        criteria=[{"metric": "perplexity", "minimum": 1.0}],
    )  # fmt: skip


def tickets() -> list[bytes]:
    """Lines of a JSON Lines file; the tickets differ in most words, so that all become examples."""
    return [_ticket(number) for number in range(COUNT)]


def _ticket(number: int) -> bytes:
    words = " ".join(content_id("w", [number, place], digits=5) for place in range(8))
    ticket = {
        "ticket_id": f"T-{number}",
        "body": words,
        "customer": f"customer-{number // 2}",
        "answer": {"category": ("bell", "horn")[number % 2]},
        "validated_by": "expert",
    }
    return json.dumps(ticket).encode() + b"\n"


Publish = Callable[[Endpoint], Awaitable[None]]


async def publish_file(ingest: Endpoint, *, project: str = PROJECT) -> None:
    """Post the file to ``ingest``."""
    assert await post(ingest, b"".join(tickets()), project=project) == HTTPStatus.ACCEPTED


async def publish_file_again_and_again(ingest: Endpoint, *, half_sent: asyncio.Event) -> None:
    """Post it as a client that stalls in the middle, is cut off, and begins anew until all is taken."""

    async def halting() -> AsyncIterator[bytes]:
        lines = tickets()
        yield b"".join(lines[: COUNT // 2])
        half_sent.set()
        await asyncio.Event().wait()  # until the server is gone

    try:
        await post(ingest, halting())
    except aiohttp.ClientError:
        pass
    else:
        raise AssertionError("the upload that was cut off in the middle was answered")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await _is_taken(ingest):
            await asyncio.sleep(0.05)  # not there yet: a client tries again


async def _is_taken(ingest: Endpoint) -> bool:
    try:
        return await post(ingest, b"".join(tickets())) == HTTPStatus.ACCEPTED
    except aiohttp.ClientError:
        return False


async def post(ingest: Endpoint, body: bytes | AsyncIterator[bytes], *, project: str = PROJECT) -> int:
    """Return the status: 202 with everything accepted, or 503."""
    async with (
        aiohttp.ClientSession(headers=ingest.headers | {"content-type": "application/x-ndjson"}) as session,
        session.post(f"{ingest.url}/v1/tickets?project={project}", data=body) as answer,
    ):
        receipt = await answer.json()
        if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
            assert answer.status == HTTPStatus.ACCEPTED, receipt
            assert receipt["accepted"] == COUNT, receipt
        return answer.status


@dataclass(frozen=True)
class Traces:
    """What one run of the loop left behind."""

    ids: dict[str, frozenset[str]]
    deliveries: dict[str, int]
    refusals: dict[str, int]
    dataset_id: str
    model_id: str
    weights_sha256: str
    desired_id: str
    adapters: tuple[str, ...]
    records: int
    distinct_records: int
    resumed_from: tuple[int, ...]


async def turn(
    wheel: Wheel, feed: EventFeed, *, base_model: str, publish: Publish = publish_file
) -> Envelope[Any]:
    """Declare the project, publish the tickets and follow them to a promoted adapter; returns what is to be
    served."""
    async with Bus(wheel.bootstrap_servers) as bus:
        await bus.publish(spec_event(base_model))
    await publish(Endpoint.of("ingest", wheel.plan.var))
    return await served(feed)


async def served(feed: EventFeed, *, project: str = PROJECT) -> Envelope[Any]:
    """Wait until an adapter is to be served; returns that desired state.

    It is published last, but the feed may bring what was published before it on other topics a little later.
    """

    def in_production(event: Envelope[Any]) -> bool:
        return event.project == project and event.data.to_stage is Stage.PRODUCTION

    def has_adapter(event: Envelope[Any]) -> bool:
        return event.project == project and any(route.adapter for route in event.data.desired.routes)

    await feed.first(topics.EVAL_PASSED, lambda e: e.project == project, patience=PATIENCE_SECONDS)
    for kind in ("base", "adapter"):
        await feed.first(
            topics.MODEL_REGISTERED,
            lambda e, kind=kind: (e.project, e.data.kind) == (project, kind),
            patience=PATIENCE_SECONDS,
        )
    await feed.first(topics.MODEL_PROMOTED, in_production, patience=PATIENCE_SECONDS)
    return await feed.first(topics.SERVING_DESIRED, has_adapter, patience=PATIENCE_SECONDS)


def traces(wheel: Wheel, feed: EventFeed, desired: Envelope[Any]) -> Traces:
    """Read what ``PROJECT`` left on the log and in the store."""
    store = wheel.plan.var.root / "store"
    arrivals = RecordTable(str(store / "records")).arrivals().filter(pl.col("project") == PROJECT)
    (completed,) = events(feed, topics.TRAIN_COMPLETED)
    (dataset,) = events(feed, topics.DATASET_VERSIONED)
    started = (e.data.resumed_from_step for e in events(feed, topics.TRAIN_STARTED))
    return Traces(
        ids={topic.name: ids(feed, topic) for topic in CAUSED},
        deliveries=dict(feed.deliveries),
        refusals={topic.name: len(events(feed, topic)) for topic in REFUSALS},
        dataset_id=dataset.data.dataset_id,
        model_id=completed.data.adapter.model_id,
        weights_sha256=weights(completed),
        desired_id=desired.id,
        adapters=tuple(sorted(path.name for path in (store / "adapters").iterdir())),
        records=arrivals.height,
        distinct_records=arrivals.select(pl.col("record_id").n_unique()).item(),
        resumed_from=tuple(sorted(started)),
    )


def events(feed: EventFeed, topic: TopicSpec) -> list[Envelope[Any]]:
    return [event for event in feed.by_topic[topic.name] if event.project == PROJECT]


def ids(feed: EventFeed, topic: TopicSpec) -> frozenset[str]:
    return frozenset(event.id for event in events(feed, topic))


def weights(completed: Envelope[Any]) -> str:
    files = completed.data.adapter.files
    return next(file.sha256 for file in files if Path(file.path).name == "adapter_model.safetensors")
