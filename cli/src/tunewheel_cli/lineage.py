"""Where a model comes from: causation walked back from the adapter to the source records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tunewheel_contracts import topics
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.formats.dataset import DatasetManifest

from tunewheel_cli.describing import describe

if TYPE_CHECKING:
    from rich.tree import Tree

SHOWN_SOURCES = 5
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


def lineage_of(model_id: str, events: Events, *, store_url: str) -> Lineage:
    """Walk back from ``model_id``; the records come from the dataset's lineage file in the store.

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
