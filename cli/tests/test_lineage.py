"""Causation walked back from a model to its source records."""

from __future__ import annotations

import json
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from tunewheel_cli.kafka.broker import run_async
from tunewheel_cli.lineage import UnknownModel, lineage_of, lineage_tree, walk
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.store import ObjectStore

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"


def example(name: str) -> dict[str, Any]:
    return json.loads(sorted((EXAMPLES / name / "valid").glob("*.json"))[0].read_text("utf-8"))


def event(name: str, cause: Envelope[Any] | None = None, **changes: Any) -> Envelope[Any]:
    data = BY_NAME[name].event.model_validate(example(name) | changes)
    return new_event(data, source="/test", cause=cause)


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def events(store_url: str) -> dict[str, Envelope[Any]]:
    """A ticket, a dataset of it, a model of that."""
    ticket = event("ticket.published")
    table = pl.DataFrame({
        "record_id": ["rec-1", "rec-2", "rec-3"],
        "source_event_id": [ticket.id, "gone", "dropped"],
        "source_id": ["T-1", "T-2", "T-3"],
        "kind": ["ticket", "ticket", "document"],
        "example_id": ["ex-1", "ex-2", None],
    })  # fmt: skip
    buffer = BytesIO()
    table.write_parquet(buffer)

    async def write() -> Any:
        store = ObjectStore(store_url)
        lineage = await store.put("datasets/ds-1/lineage.parquet", buffer.getvalue())
        manifest = DatasetManifest.model_validate(example("dataset-manifest")).model_copy(
            update={"lineage": lineage}
        )
        return await store.put("datasets/ds-1/manifest.json", manifest.model_dump_json().encode())

    manifest = run_async(write())
    requested = event("dataset.requested")
    versioned = event("dataset.versioned", requested, manifest=manifest.model_dump())
    trained = event("train.completed", versioned)
    registered = event("model.registered", trained, model_id=trained.data.adapter.model_id)
    return {e.id: e for e in (ticket, requested, versioned, trained, registered)}


def test_the_chain_ends_at_the_source_records(events: dict[str, Envelope[Any]], store_url: str) -> None:
    model_id = next(e.data.adapter.model_id for e in events.values() if e.data.type == "train.completed")
    lineage = lineage_of(model_id, events, store_url=store_url)
    assert [e.data.type for e in lineage.chain] == [
        "model.registered",
        "train.completed",
        "dataset.versioned",
        "dataset.requested",
    ]
    assert [(o.record_id, o.on_log) for o in lineage.origins] == [("rec-1", True), ("rec-2", False)]
    assert lineage.left_out == 1

    console = Console(width=200, record=True, file=StringIO())
    console.print(lineage_tree(lineage))
    text = console.export_text()
    assert "made of 2 tickets; 1 records left out by curation" in text
    assert "T-2" in text
    assert "no longer on the log" in text


def test_an_unknown_model_names_those_that_are(events: dict[str, Envelope[Any]], store_url: str) -> None:
    with pytest.raises(UnknownModel, match=r"no event made 'nope' \(there are: .+\)"):
        lineage_of("nope", events, store_url=store_url)


def test_a_circle_of_causes_ends() -> None:
    first = event("dataset.requested")
    circle = new_event(first.data, source="/test", cause=first)
    assert circle.id == first.id
    assert walk(circle, {circle.id: circle}) == (circle,)
