"""From a changed document to the first answer that cites it, among 10,000 others.

Broker, ingest, index, registry, gateway and engine are the real ones. The model is tiny and of random
weights: hardly any of the time is its own. The others are banking77's questions, a document each. Seconds
are counted from before the changed document is published.

    --documents 10000   how many others there are
    --changes 5         how often the document changes
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from changed_document import Change, KnowledgeChange, change_a_document
from corpus import require_data
from passages import tickets
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import DocumentPublished, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_local.connection import Connection
from tunewheel_local.launch import Plan, Wheel
from tunewheel_local.places import Var
from tunewheel_local.roster import choose
from tunewheel_local.wheel_secrets import LOCAL
from tunewheel_runtime.kafka import client_options
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.gateway import GatewayClient
from tunewheel_testing.sender import publish_events
from tunewheel_testing.tiny import write_tiny_model

PROJECT = "bench"
SERVICES = ("engine", "ingest", "index", "registry", "gateway")
PATIENCE_SECONDS = 280.0
QUESTION = "How many days does the depot keep lost zeppelins?"


def main() -> None:
    require_data()
    asked = argparse.ArgumentParser()
    asked.add_argument("--documents", type=int, default=10_000)
    asked.add_argument("--changes", type=int, default=5)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), options.documents, options.changes))
    write_report(
        "hybrid",
        packages=("numpy", "aiokafka"),
        contenders={"tunewheel": figures},
        ratios={},
        load_average=os.getloadavg(),
    )


async def measure(folder: Path, documents: int, changes: int) -> dict[str, Any]:
    base = str(write_tiny_model(folder / "base"))
    plan = Plan(var=Var(folder / "var"), members=choose(SERVICES), auto_ports=True, base_model=base)
    wheel = Wheel(plan)
    try:
        await wheel.start()
        settings = Connection(bootstrap_servers=wheel.bootstrap_servers).settings()
        async with (
            EventFeed(settings) as feed,
            GatewayClient(Endpoint.of("gateway", wheel.plan.var)) as gateway,
        ):
            principal = Principal(name=LOCAL)

            async def publish(*events: Envelope[Any]) -> None:
                await publish_events(client_options(settings), *events)

            spec = declared(base)
            await publish(
                new_event(ProjectDeclared(project=PROJECT, spec=spec, principal=principal), source="/bench")
            )
            started = time.perf_counter()
            await publish(document("lost.md", told(0)), *others(documents))
            await feed.until(
                lambda: held(feed) > documents, patience=PATIENCE_SECONDS, what="an index of all documents"
            )
            seconds = time.perf_counter() - started
            found = [
                await changed(number, feed, gateway, lambda event: publish(event))
                for number in range(1, changes + 1)
            ]
    finally:
        await wheel.stop()
    return {
        "documents": documents + 1,
        "seconds_until_all_are_indexed": round(seconds, 1),
        "index_seconds": spread([one.index_seconds for one in found]),
        "answer_seconds": spread([one.answer_seconds for one in found]),
    }


def declared(base: str) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": PROJECT,
            "base_model": base,
            "task": {"system_prompt": "Answer.", "max_output_tokens": 8},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "retrieval": {
                "default": "off",
                "passage_tokens": 32,
                "top_k": 1,
                "budget_tokens": 64,
                "template": "{passages}",
            },
        }
    )


def others(count: int) -> list[Envelope[Any]]:
    return [document(f"{text.name}.md", text.sections[0].text) for text in tickets(0).texts[:count]]


def document(name: str, content: str) -> Envelope[Any]:
    return new_event(
        DocumentPublished(project=PROJECT, document_id=name, title=name, content=content), source="/bench"
    )


def told(number: int) -> str:
    return f"# Zeppelins\n\n## Lost\n\nThe depot keeps lost zeppelins for {number + 7} days.\n"


def held(feed: EventFeed) -> int:
    """Return how many documents the newest index version holds."""
    versions = feed.by_topic[topics.INDEX_VERSIONED.name]
    return versions[-1].data.counts.documents if versions else 0


async def changed(number: int, feed: EventFeed, gateway: GatewayClient, publish: Any) -> KnowledgeChange:
    change = Change(QUESTION, "lost.md", "Lost")
    return await change_a_document(
        change,
        project=PROJECT,
        feed=feed,
        gateway=gateway,
        publish=lambda: publish(document("lost.md", told(number))),
    )


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 2), "most": max(seconds)}


if __name__ == "__main__":
    main()
