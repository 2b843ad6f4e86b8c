"""What the monitor costs: inferences a second and core, memory over many, seconds of a restart.

score    records of ``inference.completed`` as they lie on the log become records of ``inference.scored``:
decoded, embedded, compared with a reference of 1,000 and of 8,000 questions, encoded. One process, one thread
of linear algebra.

fold     those records are decoded and folded, with a checkpoint for each batch in a store on this disk. Peak
memory after a third of the time and after all of it (goal: the same).

restart  the service itself on a broker takes in events, of which 99 in 100 are a project's without drift
detection; then it is killed and started again under its name (``TUNEWHEEL_INSTANCE``). Seconds until it is
ready, and until it has handled what came meanwhile (goal: at most 5).

Each part takes ``--seconds``, and says how many events it got through; ``--events`` is the most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from report import costs, measured, write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_monitor.checkpoints import Checkpoints
from tunewheel_monitor.evidence import Exhibits
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_monitor.reference import References
from tunewheel_monitor.sample import Sample
from tunewheel_monitor.scoring import Scorer
from tunewheel_monitor.watch import Watch
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.partitions import group_backlog
from tunewheel_runtime.service import Delivery
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_testing.adapters import BASE
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.log import Table
from tunewheel_testing.sender import Sender, publish_events

BATCH = 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = re.findall(
    r"\w+",
    "my card account transfer payment top up exchange rate fee cash machine refund statement limit identity "
    "verify phone lost stolen pending declined wrong amount charged twice currency abroad contactless pin "
    "delivery order arrive activate virtual disposable apple google pay beneficiary direct debit cancel why "
    "how when can please help do not understand yesterday today week",
)


def question(number: int) -> str:
    """Return the ``number``-th question: 8 to 24 words, always the same."""
    draw = random.Random(number)
    return " ".join(draw.choices(WORDS, k=draw.randint(8, 24)))


def spec(project: str, **drift: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": "org/tiny",
            "task": {
                "system_prompt": "Sort the question.",
                "output_schema": {
                    "type": "object",
                    "required": ["category"],
                    "properties": {"category": {"type": "string"}},
                },
                "label_field": "category",
            },
            "criteria": [{"metric": "valid_output", "minimum": 0.5}],
            "drift": drift,
        }
    )


def completion(number: int, project: str = "desk") -> Envelope[InferenceCompleted]:
    data = InferenceCompleted(
        project=project,
        completion_id=f"chatcmpl-{number:012d}",
        model_id=f"{project}-1",
        role=RouteRole.PRODUCTION,
        messages=(
            ChatMessage(role="system", content="Sort the question."),
            ChatMessage(role="user", content=question(number % 20_000)),
        ),
        output=json.dumps({"category": f"intent {number % 77}", "answer": "Open the app and look there."}),
        finish_reason="stop",
        prompt_tokens=40,
        completion_tokens=20,
        latency_seconds=0.5,
        client="app",
        customer=f"customer-{number % 5_000}",
        completed_at=START + timedelta(milliseconds=number),
        format_valid=True,
    )
    return new_event(data, source="/bench", time=data.completed_at)


def on_log(topic: str, records: Sequence[KafkaRecord], begin: int) -> list[Delivery[Any]]:
    """Return records as a consumer hands them over, decoded."""
    event = topics.BY_NAME[topic].event
    return [
        Delivery(Envelope.from_kafka(event, record.value, record.headers), Position(topic, 0, begin + n), {})
        for n, record in enumerate(records)
    ]


async def store_dataset(store: ObjectStore, project: str, count: int) -> str:
    rows = [
        {"example_id": f"{n:08d}", "messages": [{"role": "user", "content": question(n)}]}
        for n in range(count)
    ]
    dataset_id, cut = f"ds-{project}-{count}", count * 3 // 4
    await put_dataset(store, spec(project), dataset_id=dataset_id, train=rows[:cut], holdout=rows[cut:])
    return dataset_id


def desired(project: str, dataset_id: str) -> Envelope[ServingDesired]:
    model = f"{project}-1"
    route = Route(model_id=model, role=RouteRole.PRODUCTION, percent=100, adapter=None, dataset_id=dataset_id)
    data = ServingDesired(
        project=project, generation=1, base=BASE,
        system_prompt="Sort the question.", desired=DesiredRoutes(routes=(route,)),
    )  # fmt: skip
    return new_event(data, source="/bench")


class Nowhere:
    """A log that takes everything and has nothing."""

    def new(self, data: Any, *, cause: Any = None, correlation_id: str | None = None) -> Envelope[Any]:
        return new_event(data, source="/bench", cause=cause, correlation_id=correlation_id)

    def warn(self, name: str, text: str | None) -> None:
        print(name, text, file=sys.stderr)

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        """Nobody listens."""

    async def read(self, topic: Any, places: Any) -> dict[Any, Any]:
        return {}


async def make(root: Path, count: int) -> tuple[Scorer, Watch]:
    store, log, embedder = ObjectStore((root / "store").as_uri()), Nowhere(), StaticEmbedder()
    dataset_id = await store_dataset(store, "desk", count)
    declared = new_event(ProjectDeclared(project="desk", spec=spec("desk")), source="/bench")
    knowledge = Knowledge(Table(declared), Table(desired("desk", dataset_id)))
    metrics = Metrics(make_telemetry("monitor", None))
    references = References(store, embedder, 8_000, metrics)
    exhibits = Exhibits(store, log.read, knowledge.erasures)
    pseudonyms = PseudonymKeys(store, knowledge.erasures, knowledge.refresh)
    watch = Watch(log, log.warn, knowledge, references, Checkpoints(store), exhibits, pseudonyms, metrics)
    return Scorer(knowledge, references, embedder, log.new, pseudonyms, metrics, Sample()), watch


def batches(events: int, seconds: float) -> Iterator[tuple[int, list[KafkaRecord]]]:
    """Yield batches until there were so many events, or so many seconds are over; one batch at least."""
    until = time.monotonic() + seconds
    for begin in range(0, events, BATCH):
        yield begin, [completion(n).to_kafka() for n in range(begin, min(begin + BATCH, events))]
        if time.monotonic() >= until:
            return


async def scored(scorer: Scorer, begin: int, records: Sequence[KafkaRecord]) -> list[KafkaRecord]:
    deliveries = on_log(topics.INFERENCE_COMPLETED.name, records, begin)
    return [event.to_kafka() for event in await scorer.completions(deliveries)]


async def score(root: Path, events: int, seconds: float, count: int) -> dict[str, Any]:
    scorer, _ = await make(root, count)
    await scored(scorer, 0, [completion(0).to_kafka()])  # the reference is fitted once
    cpu, wall, done = 0.0, 0.0, 0
    for begin, records in batches(events, seconds):
        started, used = time.perf_counter(), time.process_time()
        await scored(scorer, begin, records)
        wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - used
        done = begin + len(records)
    return costs(done, cpu, wall)


async def fold(root: Path, events: int, seconds: float) -> dict[str, Any]:
    scorer, watch = await make(root, 1_000)
    cpu, wall, done, early = 0.0, 0.0, 0, dict[str, int]()
    begun = time.monotonic()
    for begin, records in batches(events, seconds):
        made = await scored(scorer, begin, records)
        started, used = time.perf_counter(), time.process_time()
        await watch.take(on_log(InferenceScored.type, made, begin))
        wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - used
        done = begin + len(records)
        if not early and (time.monotonic() - begun >= seconds / 3 or done >= events / 3):
            early = {
                "records_of_a_third": done,
                "peak_rss_bytes_after_a_third": costs(1, 1, 1)["peak_rss_bytes"],
            }
    return costs(done, cpu, wall) | early


async def restart(root: Path, servers: str, events: int, seconds: float) -> dict[str, Any]:
    options = {"bootstrap_servers": servers}
    store = ObjectStore((root / "store").as_uri())
    for project, drift in (("off", {"enabled": False}), ("desk", {})):
        dataset_id = await store_dataset(store, project, 1_000)
        declared = ProjectDeclared(project=project, spec=spec(project, **drift))
        await publish_events(options, new_event(declared, source="/bench"), desired(project, dataset_id))
    sent, until = 0, time.monotonic() + seconds / 3
    async with Sender(options) as sender:
        while sent < events and time.monotonic() < until:
            for number in range(sent, sent + BATCH):
                await sender.send(completion(number, "desk" if number % 100 == 0 else "off").to_kafka())
            sent += BATCH
        await sender.flush()
    watched = sent // 100
    monitor = Monitor(root, servers)
    first = monitor.start()
    await until_handled(options, sent, watched)
    taken_in = time.perf_counter() - first
    monitor.process.kill()
    monitor.process.wait(30)
    await publish_events(options, *(completion(10**9 + n) for n in range(50)))
    begun = monitor.start()
    ready = await monitor.is_ready() - begun
    await until_handled(options, sent + 50, watched + 50)
    handled = time.perf_counter() - begun
    monitor.process.kill()
    monitor.process.wait(30)
    return {
        "events": sent,
        "taken_in_per_second": round(sent / taken_in),
        "ready_after_seconds": round(ready, 2),
        "has_handled_what_waited_after_seconds": round(handled, 2),
    }


class Monitor:
    """The service in a process of its own."""

    def __init__(self, root: Path, servers: str) -> None:
        self._port = free_port()
        self._log = root / "monitor.log"
        self._environment = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
            "TUNEWHEEL_STORE_URL": (root / "store").as_uri(),
            "TUNEWHEEL_HEALTH_PORT": str(self._port),
            "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
            "TUNEWHEEL_INSTANCE": "bench",
        }

    def start(self) -> float:
        command = [sys.executable, "-m", "tunewheel_monitor.main"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self._environment, stdout=log, stderr=log
            )
        return time.perf_counter()

    async def is_ready(self) -> float:
        """Wait for it; return when that was."""
        while not await asyncio.to_thread(self._answers):
            await asyncio.sleep(0.02)
        return time.perf_counter()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


async def until_handled(options: dict[str, Any], completions: int, scores: int) -> None:
    """Wait until both steps have taken in so many."""
    wanted = {topics.INFERENCE_COMPLETED.name: completions, topics.INFERENCE_SCORED.name: scores}
    for topic, count in wanted.items():
        group = f"monitor.{topic.replace('.', '-')}"
        while sum((await group_backlog(options, topic, group=group)).kept.values()) < count:
            await asyncio.sleep(0.2)


def part(name: str, events: int, seconds: float) -> dict[str, Any]:
    """Measure one part in this process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if name.startswith("score"):
            return asyncio.run(score(root, events, seconds, int(name.partition("-")[2])))
        if name == "fold":
            return asyncio.run(fold(root, events, seconds))
        broker = LocalKafka(root / "kafka", port=None).start()
        try:
            asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
            return asyncio.run(restart(root, broker.bootstrap_servers, events, seconds))
        finally:
            broker.stop()


PARTS = ("score-1000", "score-8000", "fold", "restart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=35.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(part(given.part, given.events, given.seconds)))
        return
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    size = ("--events", given.events, "--seconds", given.seconds)
    found = {name: measured(__file__, "--part", name, *size) for name in given.parts}
    whole = {
        f"inferences_per_core_second_{name}": 1
        / (1 / figures["records_per_cpu_second"] + 1 / found["fold"]["records_per_cpu_second"])
        for name, figures in found.items()
        if name.startswith("score") and "fold" in found
    }
    if "fold" in found:
        grown = found["fold"]["peak_rss_bytes"] / found["fold"]["peak_rss_bytes_after_a_third"]
        whole["memory_after_all_by_memory_after_a_third"] = grown
    packages = ("numpy", "pydantic", "tokenizers", "aiokafka")
    write_report("monitor", packages=packages, contenders=found, ratios=whole)


if __name__ == "__main__":
    main()
