"""Processes of the index over a log that is a list, with a real store and real vectors (Kafka:
tests/integration)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_embedding.embedders import Embedders
from tunewheel_index.building import Builder
from tunewheel_index.indexer import Indexer, apply
from tunewheel_index.metrics import Metrics
from tunewheel_index.planning import Upto
from tunewheel_index.project import Project
from tunewheel_index.storing import IndexStore
from tunewheel_retrieval.index import Index
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_testing.log import Table
from tunewheel_testing.specs import spec_of

from .records import MINUTE, NOON, record

UNREACHABLE = {"kind": "endpoint", "base_url": "http://evil/v1", "model": "m", "dimensions": 3}
"""An embedding that no process here may ask."""


def spec(**retrieval: Any) -> ProjectSpec:
    return spec_of("shop", retrieval=retrieval)


class World:
    """A log and a store that outlive processes."""

    def __init__(self) -> None:
        self.store = ObjectStore("memory://")
        self.records: list[Envelope[Any]] = []
        self.takebacks: list[Envelope[Any]] = []
        self.specs: list[Envelope[Any]] = []
        self.named: list[IndexVersioned] = []
        self.taken_back: list[str] = []
        self.read_whole = 0
        self.in_memory = set[str]()
        """Documents whose texts are in memory after the log was read from its beginning."""
        self.warnings: dict[str, str | None] = {}
        self.refuses = 0
        self.is_active = True
        self.metrics = Metrics(make_telemetry("index", None))

    # the part of a service that a builder writes through
    def new(self, data: Any) -> Envelope[Any]:
        return new_event(data, source="/test")

    def require_active(self) -> None:
        if not self.is_active:
            raise LeadershipLost("another process is the active one now")

    async def publish(self, envelope: Envelope[Any]) -> None:
        self.require_active()
        if self.refuses:
            self.refuses -= 1
            raise TransientError("the broker is away")
        self.named.append(envelope.data)

    async def take_back(self, project: str) -> None:
        self.require_active()
        self.taken_back.append(project)

    def publish_record(self, document_id: str, text: str, minute: int = 0, **changes: Any) -> Envelope[Any]:
        made = new_event(record(document_id, text, **changes), source="/test", time=NOON + minute * MINUTE)
        self.records.append(made)
        return made

    def declare(self, *, injections: str = "quarantine", **retrieval: Any) -> Envelope[Any]:
        declared = spec(**retrieval)
        dataset = declared.dataset.model_copy(update={"injections": injections})
        declared = declared.model_copy(update={"dataset": dataset})
        made = new_event(ProjectDeclared(project="shop", spec=declared), source="/test")
        self.specs.append(made)
        return made


class Process:
    """One process of the index over its ``world``."""

    def __init__(self, world: World, *, hosts: str = DEFAULT_HOSTS, retry_seconds: float = 86_400.0) -> None:
        self.world = world
        self.declared, self.newest = Table(), Table()
        self.versions = IndexStore(world.store)
        self.indexer = Indexer(
            self.declared, self.newest, self.versions,  # type: ignore[arg-type]
            metrics=world.metrics, quiet_seconds=0.0, retry_seconds=retry_seconds,
            warn=self._warn, failed=self._failed,
        )  # fmt: skip
        self.began = self._read = 0
        self.indexer.builder = Builder(
            world, self.versions, Embedders(AllowedSources(hosts=hosts)),  # type: ignore[arg-type]
            self._upto, self._again, self._released,
            metrics=world.metrics, max_passages=1_000, kept_versions=3,
        )  # fmt: skip

    async def start(self) -> Process:
        for envelope in self.world.specs:
            self.declared.tell(envelope)
        for data in self.world.named:
            self.newest.tell(new_event(data, source="/test"))
        for offset, envelope in enumerate(self.world.takebacks):
            self.indexer.on_takeback(envelope, Position("t", 0, offset))
        begins = (await self.indexer.begins())[topics.RECORD_INGESTED.name]
        self.began = self._read = len(self.world.records) if begins is None else begins.get("0", 0)
        self.follow()
        return self

    def follow(self) -> None:
        """Read the records that came since."""
        for offset in range(self._read, len(self.world.records)):
            self.indexer.on_record(self.world.records[offset], Position("r", 0, offset))
        self._read = len(self.world.records)

    async def take_back(self, data: Any, minute: int) -> Envelope[Any]:
        made = new_event(data, source="/test", time=NOON + minute * MINUTE)
        self.world.takebacks.append(made)
        self.indexer.on_takeback(made, Position("t", 0, len(self.world.takebacks) - 1))
        return made

    async def settle(self) -> Index | None:
        """Build what is to be built, and return the newest version as the store has it."""
        self.follow()
        await self.indexer.settle("shop")
        return await self.versions.open(self.world.named[-1].manifest) if self.world.named else None

    def _upto(self) -> Upto:
        return Upto({"0": self._read}, {"0": len(self.world.takebacks)}, {"0": 0})

    async def _again(self, project: Project, wanted: Collection[str] | None) -> None:
        self.world.read_whole += 1
        for envelope in self.world.records:
            apply(project, envelope.data, envelope.time, again=wanted)
        self.world.in_memory = {one.source_id for one in project.documents.texts.values()}
        project.is_whole = True

    def _released(self, project: str, record_id: str) -> bool:
        return self.indexer.judgements.verdict(project, record_id) == "release"

    def _warn(self, name: str, text: str | None) -> None:
        self.world.warnings[name] = text

    def _failed(self, error: BaseException) -> None:
        raise error


def texts(index: Index | None) -> dict[str, str]:
    return {} if index is None else {row.document_id: row.text for row in index.rows}
