"""`tunewheel lineage` on a real log: all of the lineage, and no topic that cannot hold a part of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_cli import reading
from tunewheel_cli.lineage import CAUSES, read_lineage
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.store import ObjectStore

from .bus import Bus

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"


def example(name: str) -> dict[str, Any]:
    return json.loads(sorted((EXAMPLES / name / "valid").glob("*.json"))[0].read_text("utf-8"))


@pytest.mark.parametrize("after_drift", [False, True], ids=["built by command", "built after drift"])
async def test_a_lineage_is_whole_and_reads_only_the_topics_that_hold_it(
    kafka: str, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch, after_drift: bool
) -> None:
    def event(name: str, cause: Envelope[Any] | None = None, **changes: Any) -> Envelope[Any]:
        data = BY_NAME[name].event.model_validate(example(name) | {"project": project} | changes)
        return new_event(data, source="/test", cause=cause)

    ticket = event("ticket.published")
    rows = pl.DataFrame({
        "record_id": ["rec-1", "rec-2"], "source_event_id": [ticket.id, "gone"], "source_id": ["T-1", "T-2"],
        "kind": ["ticket", "ticket"], "example_id": ["ex-1", "ex-2"],
    })  # fmt: skip
    buffer = BytesIO()
    rows.write_parquet(buffer)
    store = ObjectStore((tmp_path / "store").as_uri())
    lineage = await store.put("datasets/ds-1/lineage.parquet", buffer.getvalue())
    manifest = DatasetManifest.model_validate(example("dataset-manifest") | {"lineage": lineage.model_dump()})
    ref = await store.put("datasets/ds-1/manifest.json", manifest.model_dump_json().encode())

    completion = event("inference.completed")
    window = example("drift.detected")["window"] | {"started_at": datetime.now(UTC).isoformat()}
    window["ended_at"] = window["started_at"]
    drift = event("drift.detected", completion, window=window)
    requested = event("dataset.requested", drift if after_drift else None)
    versioned = event("dataset.versioned", requested, manifest=ref.model_dump())
    adapter = example("train.completed")["adapter"] | {"model_id": f"{project}-1"}
    trained = event("train.completed", versioned, adapter=adapter)

    read: set[str] = set()
    read_records = reading.read_records

    def noting(options: Any, names: list[str], **more: Any) -> Any:
        read.update(names)
        return read_records(options, names, **more)

    monkeypatch.setattr(reading, "read_records", noting)
    async with Bus(kafka) as bus:
        await bus.publish(ticket, completion, drift, requested, versioned, trained)
    found = await read_lineage({"bootstrap_servers": kafka}, f"{project}-1", store_url=store.url)

    chain = ["train.completed", "dataset.versioned", "dataset.requested"]
    traffic = {"inference.completed", "feedback.received"} if after_drift else set[str]()
    assert [e.data.type for e in found.chain] == chain + after_drift * [
        "drift.detected",
        "inference.completed",
    ]
    assert [(origin.source_id, origin.on_log) for origin in found.origins] == [("T-1", True), ("T-2", False)]
    assert read == {topic.name for topic in CAUSES} | {"ticket.published"} | traffic
