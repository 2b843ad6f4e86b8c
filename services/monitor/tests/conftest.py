"""Texts of two kinds, a dataset in a store, completions and ratings on a log."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ModelPromoted, ServingDesired, Stage
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import TopicSpec
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_monitor import pseudonym_keys
from tunewheel_monitor.checkpoints import Checkpoints
from tunewheel_monitor.evidence import Exhibits
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_monitor.reference import Reference, References
from tunewheel_monitor.sample import Sample
from tunewheel_monitor.scoring import Scorer
from tunewheel_monitor.watch import Watch
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.service import Delivery
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_testing.adapters import BASE
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.log import MemoryLog, Table

START = datetime(2026, 1, 1, tzinfo=UTC)
FITTED: dict[str, Reference | None] = {}
"""References that any test had fitted: one dataset id stands for the same texts in all of them."""

THINGS = ("bike", "battery", "charger", "saddle", "brake", "lamp", "lock", "tyre", "pedal", "chain", "bell")
TROUBLES = ("is broken", "makes a noise", "came late", "is missing", "does not fit", "fell off", "is loose")
OPENINGS = ("Hello, my", "Since Monday the", "Help! The", "My new", "Our", "The red", "Why is it that the")


def bike_texts(count: int, *, start: int = 0) -> list[str]:
    """Return texts of a bicycle shop's help desk, all different."""
    made = [f"{o} {t} {w} again" for w in TROUBLES for t in THINGS for o in OPENINGS]
    step = 137  # prime to the number of texts, so that every stretch is a mixture
    return [made[(start + n) * step % len(made)] for n in range(count)]


def tax_texts(count: int) -> list[str]:
    """Return texts about something else."""
    kinds = ("income tax", "inheritance", "customs duty", "payroll levy", "dividend", "pension fund")
    asks = ("file the annual return for", "appeal the assessment of", "deduct losses from", "postpone paying")
    years = range(1990, 2026)
    made = [f"May I {ask} the {kind} of {year}?" for year in years for kind in kinds for ask in asks]
    return made[:count]


@pytest.fixture(autouse=True)
def _known_pseudonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users whose pseudonyms share a bucket share its votes. Who does must not be drawn anew at each run."""
    numbers = itertools.count()

    def token_bytes(size: int) -> bytes:
        return next(numbers).to_bytes(size)

    monkeypatch.setattr(pseudonym_keys, "secrets", SimpleNamespace(token_bytes=token_bytes))


@pytest.fixture(scope="session")
def embedder() -> StaticEmbedder:
    return StaticEmbedder()


@pytest.fixture(scope="session")
def encoder() -> SentenceEmbedder:
    return SentenceEmbedder()


def spec_of(project: str = "desk", **changes: Any) -> ProjectSpec:
    raw: dict[str, Any] = {
        "project": project,
        "base_model": "org/tiny",
        "task": {"system_prompt": "Answer.", "output_schema": {"type": "object", "required": ["category"]}},
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
        "drift": {"window": 20, "cooldown_completions": 30},
        "rollout": {"canary": {"min_requests": 10}},
    }
    return ProjectSpec.model_validate(raw | changes)


async def store_dataset(store: ObjectStore, spec: ProjectSpec, dataset_id: str, texts: Sequence[str]) -> None:
    """Put a dataset version of ``texts`` into ``store``: three quarters to train on, the rest held out."""
    cut = len(texts) * 3 // 4
    train, holdout = (
        [
            {
                "example_id": f"{split}-{n:05d}",
                "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "{}"}],
            }
            for n, text in enumerate(part)
        ]
        for split, part in (("train", texts[:cut]), ("holdout", texts[cut:]))
    )
    await put_dataset(store, spec, dataset_id=dataset_id, train=train, holdout=holdout)


@dataclass
class Traffic:
    """Makes the deliveries of project ``desk``: completions go round three partitions."""

    project: str = "desk"
    sent: int = 0

    def completion(self, text: str, /, **changes: Any) -> Delivery[InferenceCompleted]:
        n = self.sent
        self.sent += 1
        values: dict[str, Any] = {
            "project": self.project,
            "completion_id": f"c-{n:05d}",
            "model_id": "desk-1",
            "role": RouteRole.PRODUCTION,
            "messages": (ChatMessage(role="user", content=text),),
            "output": '{"category": "x"}',
            "finish_reason": "stop",
            "completed_at": START + timedelta(seconds=n),
        }
        event = new_event(InferenceCompleted(**(values | changes)), source="/test")
        return Delivery(event, Position(topics.INFERENCE_COMPLETED.name, n % 3, n // 3), {})

    def rating(self, completion_id: str, rating: str, **changes: Any) -> Delivery[FeedbackReceived]:
        n = self.sent
        self.sent += 1
        values = {
            "project": self.project,
            "feedback_id": f"f-{n}",
            "completion_id": completion_id,
            "rating": rating,
            "model_id": "desk-1",
        }
        event = new_event(FeedbackReceived.model_validate(values | changes), source="/test")
        return Delivery(event, Position(topics.FEEDBACK_RECEIVED.name, n % 3, n // 3), {})


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


class Broker(MemoryLog):
    """The log in memory: what was published, and what lies where."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic: dict[tuple[str, int, int], Envelope[Any]] = {}
        self.elsewhere: set[str] = set()

    def handles(self, topic: TopicSpec, key: str) -> bool:
        return key not in self.elsewhere

    async def read(
        self, topic: TopicSpec, places: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], Envelope[Any]]:
        found = {place: self.traffic.get((topic.name, *place)) for place in places}
        return {place: event for place, event in found.items() if event is not None}


class Desk:
    """Project ``desk`` with a model in production, and the monitor that watches it.

    ``revive`` is a kill and a restart: a new ``Watch`` on the same log and store.
    """

    def __init__(self, store: ObjectStore, embedder: StaticEmbedder) -> None:
        self.store = store
        self.broker = Broker()
        self.declared, self.desired = Table(), Table()
        self.lifecycle: list[Envelope[Any]] = []
        self.traffic = Traffic()
        self.scored: list[Delivery[Any]] = []
        self._embedder = embedder
        metrics = Metrics(make_telemetry("monitor", None))
        self.references = References(store, embedder, 500, metrics, _fitted=FITTED)
        self.sample = Sample()
        self.revive()

    def encode(self, encoder: SentenceEmbedder, *, per_hour: int = 100_000) -> None:
        """Let ``encoder`` score a sample too. It is another process, with references of its own."""
        metrics = Metrics(make_telemetry("monitor", None))
        self.references = References(self.store, self._embedder, 500, metrics, encoder)
        self.sample = Sample(encoder, per_hour)
        self.revive()

    def revive(self) -> None:
        self.knowledge, self.scorer, self.watch = self.replica()

    def metrics_text(self) -> str:
        """Return what Prometheus reads, without the label that every series has."""
        text = self.telemetry.metrics_text()
        return text.replace('{service="monitor"}', "").replace('service="monitor",', "")

    def replica(self) -> tuple[Knowledge, Scorer, Watch]:
        """Return what another process would know and do."""
        knowledge = Knowledge(self.declared, self.desired)
        for event in (*self.lifecycle, *self.broker.events):
            knowledge.apply(event)
        references = self.references
        exhibits = Exhibits(self.store, self.broker.read, knowledge.erasures)
        pseudonyms = PseudonymKeys(self.store, knowledge.erasures, knowledge.refresh)
        self.telemetry = make_telemetry("monitor", None)
        metrics = Metrics(self.telemetry)
        scorer = Scorer(
            knowledge, references, self._embedder, self.broker.new, pseudonyms, metrics, self.sample
        )
        watch = Watch(
            self.broker, self.broker.warn, knowledge, references, Checkpoints(self.store), exhibits,
            pseudonyms, metrics,
        )  # fmt: skip
        return knowledge, scorer, watch

    async def promote(self, model_id: str, dataset_id: str, texts: Sequence[str], **spec: Any) -> None:
        """Store the dataset, put the model into production, declare the project."""
        await store_dataset(self.store, spec_of(**spec), dataset_id, texts)
        self.declare(**spec)
        self.step(model_id, Stage.PRODUCTION)
        self.serve(route_of(model_id, RouteRole.PRODUCTION, 100, dataset_id))

    def declare(self, **spec: Any) -> None:
        self.declared.put(ProjectDeclared(project="desk", spec=spec_of(**spec)))

    def step(self, model_id: str, stage: Stage) -> None:
        data = ModelPromoted(
            project="desk", model_id=model_id, from_stage=Stage.EVALUATED, to_stage=stage, cause="c",
            reason="r",
        )  # fmt: skip
        event = new_event(data, source="/test", time=START, correlation_id=f"turn-of-{model_id}")
        self.lifecycle.append(event)
        self.knowledge.apply(event)

    def serve(self, *routes: Route) -> None:
        state = ServingDesired(
            project="desk", generation=7, base=BASE, system_prompt="", desired=DesiredRoutes(routes=routes)
        )
        self.desired.put(state)

    async def score(self, deliveries: Sequence[Delivery[Any]]) -> list[Delivery[Any]]:
        """Return the scores of completions or ratings as they lie on their topic."""
        for delivery in deliveries:
            position = delivery.position
            self.broker.traffic[position.topic, position.partition, position.offset] = delivery.event
        made: list[Delivery[Any]] = []
        for topic, some in groupby(deliveries, key=lambda delivery: delivery.position.topic):
            of_completions = topic == topics.INFERENCE_COMPLETED.name
            score = self.scorer.completions if of_completions else self.scorer.ratings
            made += [self.on_log(event) for event in await score(list(some))]
        return made

    def on_log(self, event: Envelope[Any]) -> Delivery[Any]:
        """Append a score to its topic."""
        delivery = Delivery(event, Position(topics.INFERENCE_SCORED.name, 1, len(self.scored)), {})
        self.scored.append(delivery)
        return delivery

    async def send(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Let traffic be scored and folded, all of it as one batch."""
        await self.watch.take(await self.score(deliveries))

    def ask(self, texts: Sequence[str], **changes: Any) -> list[Delivery[Any]]:
        return [self.traffic.completion(text, **changes) for text in texts]

    @property
    def alarms(self) -> dict[str, Any]:
        """Return the alarms by detector."""
        return {alarm.signal: alarm for alarm in self.broker.of("drift.detected")}

    @property
    def resolved(self) -> dict[str, Any]:
        return {one.detector: one for one in self.broker.of("drift.resolved")}

    def files(self) -> dict[str, str]:
        """Return what the monitor keeps in the store, by path."""
        root = self.store.local_root
        assert root is not None
        paths = sorted((root / "monitor").rglob("*.json"))
        return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}


def route_of(model_id: str, role: RouteRole, percent: int, dataset_id: str | None) -> Route:
    return Route(model_id=model_id, role=role, percent=percent, adapter=None, dataset_id=dataset_id)


@pytest.fixture
def desk(embedder: StaticEmbedder, tmp_path: Path) -> Desk:
    return Desk(ObjectStore(tmp_path.as_uri()), embedder)
