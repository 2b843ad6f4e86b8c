"""What came of what, asked of a registry on a real log, and of the process after it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_cli.acls import least_acls
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.specs import declared

from .bus import Bus, running
from .test_registry import Reader, registry, told
from .verdicts import adapter_of, passed, trained

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"
UNREAD = {"inference.completed", "record.ingested", "ticket.published", "feedback.received"}


def example(name: str) -> dict[str, Any]:
    return json.loads(sorted((EXAMPLES / name / "valid").glob("*.json"))[0].read_text("utf-8"))


async def stored_version(store: ObjectStore, project: str, dataset_id: str) -> Envelope[Any]:
    """Put a version of two tickets into ``store``; return its event."""
    rows = pl.DataFrame({
        "record_id": ["rec-1", "rec-2"], "source_event_id": ["e-1", "e-2"],
        "source_id": ["source-1", "source-2"],
        "kind": ["ticket", "ticket"], "example_id": ["ex-1", None], "stage": [None, "cleaning"],
    })  # fmt: skip
    buffer = BytesIO()
    rows.write_parquet(buffer)
    lineage = await store.put(f"datasets/{dataset_id}/lineage.parquet", buffer.getvalue())
    manifest = DatasetManifest.model_validate(example("dataset-manifest") | {"lineage": lineage.model_dump()})
    ref = await store.put(f"datasets/{dataset_id}/manifest.json", manifest.model_dump_json().encode())
    changes = {"project": project, "dataset_id": dataset_id, "manifest": ref.model_dump()}
    data = BY_NAME["dataset.versioned"].event.model_validate(example("dataset.versioned") | changes)
    return new_event(data, source="/test")


async def test_a_record_leads_to_its_model_and_back_in_this_process_and_the_next(
    kafka: str, tmp_path: Path, project: str
) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    run = trained(project, 1)
    model_id = adapter_of(project, 1).model_id
    completion = BY_NAME["inference.completed"].event.model_validate(
        example("inference.completed") | {"project": project, "model_id": model_id}
    )

    async def both_ways(service: Service) -> list[Any]:
        answers = [
            await told(service, f"/v1/projects/{project}/lineage/{name}") for name in ("rec-1", model_id)
        ]
        return [
            ({n["id"] for n in a["nodes"]}, {(e["source"], e["target"]) for e in a["edges"]}) for a in answers
        ]

    async with Bus(kafka) as bus:
        version = await stored_version(store, project, run.data.dataset_id)
        async with running(registry(kafka, tmp_path)) as service:
            events = (declared(project), version, run, passed(project, 1))
            await bus.publish(*events, new_event(completion, source="/test"))
            await Reader(bus, project).desired(model_id)
            for reader in service.readers:
                await reader.refresh()
            before = await both_ways(service)
        async with running(registry(kafka, tmp_path)) as service:
            assert await both_ways(service) == before
            read = service.replayed | {topic for _, topic in service.groups}
    for nodes, edges in before:
        assert {"rec-1", run.data.dataset_id, run.data.run_id, model_id} <= nodes
        assert {("rec-1", run.data.dataset_id), (run.data.run_id, model_id)} <= edges
        assert "rec-2" not in nodes
    assert len(read) > 15
    assert not read & UNREAD


def test_kafka_need_not_let_the_registry_read_what_users_ask() -> None:
    allowed = {acl.resource for acl in least_acls(["registry"]) if "Read" in acl.operations}
    assert topics.MODEL_PROMOTED.name in allowed
    assert not allowed & UNREAD
