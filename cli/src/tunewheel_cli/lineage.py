"""Where a model comes from: causation walked back from the adapter to the source records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tunewheel_contracts import topics
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned, RecordKind
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.formats.dataset import DatasetManifest

from tunewheel_cli.describing import describe
from tunewheel_cli.reading import decode, find_records, read_topics

if TYPE_CHECKING:
    from rich.tree import Tree

SHOWN_SOURCES = 5
CAUSES = (
    topics.MODEL_REGISTERED,
    topics.TRAIN_COMPLETED,
    topics.DATASET_VERSIONED,
    topics.DATASET_REQUESTED,
    topics.DOCUMENT_WITHDRAWN,
    topics.ERASURE_REQUESTED,
    topics.DRIFT_DETECTED,
)
"""Where the events between a model and the first cause of its dataset lie, but for the one message that an
alarm of drift ends at."""
TRAFFIC = (topics.INFERENCE_COMPLETED, topics.FEEDBACK_RECEIVED)
SOURCE_OF = {
    RecordKind.TICKET: topics.TICKET_PUBLISHED,
    RecordKind.DOCUMENT: topics.DOCUMENT_PUBLISHED,
    RecordKind.EXAMPLE: topics.EXAMPLE_PUBLISHED,
    RecordKind.FEEDBACK: topics.FEEDBACK_RECEIVED,
}
CLOCKS_APART = timedelta(hours=1)
"""What is looked for by the time it was written may bear that of another machine's clock."""
Events = Mapping[str, Envelope[Any]]
"""By event id."""


class UnknownModel(TunewheelError):
    """No event on the log made this model."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One source record that went into the dataset."""

    record_id: str
    kind: str
    source_id: str
    source_event_id: str
    example_id: str | None
    on_log: bool
    """Whether the event that published it is (still) there."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """``chain`` begins at the model and ends at the first cause; ``origins`` are the records used."""

    model_id: str
    chain: tuple[Envelope[Any], ...]
    dataset: DatasetVersioned | None
    origins: tuple[Origin, ...]
    left_out: int
    """Records that curation saw and did not use."""

    def as_json(self) -> dict[str, Any]:
        """Return the lineage for machines."""
        chain = [{"id": e.id, "type": e.data.type, "subject": e.data.ce_subject, "time": e.time,
                  "causationid": e.causation_id} for e in self.chain]  # fmt: skip
        origins = [asdict(origin) for origin in self.origins]
        dataset = self.dataset.dataset_id if self.dataset else None
        return {"model_id": self.model_id, "chain": chain, "dataset_id": dataset, "origins": origins,
                "left_out": self.left_out}  # fmt: skip


async def read_lineage(options: Mapping[str, Any], model_id: str, *, store_url: str) -> Lineage:
    """Walk back from ``model_id`` on the log, of which only the topics are read that can hold a part of it:
    of the traffic at most the window of one alarm, of what was published the kinds that went in.

    Raises:
        UnknownModel: no event made it.
        ArtifactMissing, CorruptArtifact, TransientError: the store does not hold the dataset, or no Kafka
            answers.
    """
    events = {event.id: event async for event in read_topics(options, CAUSES)}
    last = walk(_first(model_id, events), events)[-1]
    if isinstance(last.data, DriftDetected) and last.causation_id:
        since = last.data.window.started_at - CLOCKS_APART
        found = await find_records(options, TRAFFIC, {last.causation_id}, since=since)
        events |= {e.id: e for record in found.values() if (e := decode(record)) is not None}
    lineage = await asyncio.to_thread(lineage_of, model_id, events, store_url=store_url)
    kinds = {RecordKind(origin.kind) for origin in lineage.origins}
    sources = [topic for kind, topic in SOURCE_OF.items() if kind in kinds]
    on_log = await find_records(options, sources, {origin.source_event_id for origin in lineage.origins})
    origins = [replace(origin, on_log=origin.source_event_id in on_log) for origin in lineage.origins]
    return replace(lineage, origins=tuple(origins))


def lineage_of(model_id: str, events: Events, *, store_url: str) -> Lineage:
    """Walk back from ``model_id`` among ``events``; the records come from the dataset's lineage file in the
    store.

    Raises:
        UnknownModel: no event made it.
        ArtifactMissing, CorruptArtifact, TransientError: the store does not hold the dataset.
    """
    chain = walk(_first(model_id, events), events)
    dataset = next((e.data for e in chain if e.data.type == topics.DATASET_VERSIONED.name), None)
    rows = _read_rows(dataset, store_url) if dataset else []
    used = [row for row in rows if row["example_id"] is not None]
    origins = [
        Origin(
            record_id=row["record_id"],
            kind=row["kind"],
            source_id=row["source_id"],
            source_event_id=row["source_event_id"],
            example_id=row["example_id"],
            on_log=row["source_event_id"] in events,
        )
        for row in used
    ]
    return Lineage(model_id, chain, dataset, tuple(origins), len(rows) - len(used))


def walk(start: Envelope[Any], events: Events) -> tuple[Envelope[Any], ...]:
    """Follow ``causationid`` from ``start`` to the first cause that is on the log."""
    chain = [start]
    seen = {start.id}
    while (cause := events.get(chain[-1].causation_id or "")) is not None and cause.id not in seen:
        chain.append(cause)
        seen.add(cause.id)
    return tuple(chain)


def lineage_tree(lineage: Lineage) -> Tree:
    """Draw a lineage for the terminal."""
    from rich.tree import Tree

    tree = Tree(f"[bold]{lineage.model_id}[/]")
    branch = tree
    for event in lineage.chain:
        branch = branch.add(f"[cyan]{event.data.type}[/] {describe(event)} [dim]{event.id}[/]")
        if event.data is lineage.dataset:
            _add_origins(branch, lineage)
    return tree


def _add_origins(branch: Tree, lineage: Lineage) -> None:
    kinds = Counter(origin.kind for origin in lineage.origins)
    words = ", ".join(f"{count} {kind}s" for kind, count in kinds.most_common())
    records = branch.add(f"made of {words or 'no records'}; {lineage.left_out} records left out by curation")
    for origin in lineage.origins[:SHOWN_SOURCES]:
        gone = "" if origin.on_log else " [red](no longer on the log)[/]"
        records.add(f"{origin.kind} {origin.source_id} [dim]{origin.source_event_id}[/]{gone}")
    if len(lineage.origins) > SHOWN_SOURCES:
        records.add(f"[dim]… and {len(lineage.origins) - SHOWN_SOURCES} more[/]")


def _first(model_id: str, events: Events) -> Envelope[Any]:
    made_by = (topics.MODEL_REGISTERED.name, topics.TRAIN_COMPLETED.name)
    for name in made_by:
        for event in events.values():
            data = event.data
            if data.type == name and model_id == getattr(data, "model_id", _adapter_id(data)):
                return event
    known = sorted(
        {_adapter_id(e.data) for e in events.values() if e.data.type == topics.TRAIN_COMPLETED.name}
    )
    there = f" (there are: {', '.join(known)})" if known else ""
    raise UnknownModel(f"model: no event made {model_id!r}{there}; check the id with `tunewheel status`")


def _adapter_id(data: Any) -> str:
    adapter = getattr(data, "adapter", None)
    return adapter.model_id if adapter else ""


def _read_rows(dataset: DatasetVersioned, store_url: str) -> list[dict[str, Any]]:
    import polars as pl
    from tunewheel_runtime.store import ObjectStore

    from tunewheel_cli.kafka.broker import run_async

    async def read() -> bytes:
        store = ObjectStore(store_url)
        manifest = DatasetManifest.model_validate_json(await store.get(dataset.manifest))
        return await store.get(manifest.lineage) if manifest.lineage else b""

    raw = run_async(read())
    return pl.read_parquet(BytesIO(raw)).to_dicts() if raw else []
