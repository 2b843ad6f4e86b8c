"""Dataset versions in a store, without the service that builds them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.store import ObjectStore

from tunewheel_testing.adapters import SHA

Rows = Sequence[dict[str, Any]]
Split = Rows | bytes | ArtifactRef
"""Rows, a file of them, or a file that is in the store already."""


def parquet(rows: Rows, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(rows, **options).write_parquet(buffer)
    return buffer.getvalue()


async def put_dataset(
    store: ObjectStore,
    spec: ProjectSpec,
    *,
    dataset_id: str = "ds-1",
    train: Split = (),
    holdout: Split | None = None,
    **changes: Any,
) -> tuple[DatasetManifest, ArtifactRef]:
    """Put a version into ``store``. Without ``holdout`` its rows are those of ``train``."""

    async def put(name: str, rows: Split) -> ArtifactRef:
        if isinstance(rows, ArtifactRef):
            return rows
        data = rows if isinstance(rows, bytes) else parquet(rows)
        return await store.put(f"datasets/{dataset_id}/{name}.parquet", data)

    splits = {"train": train} | ({} if holdout is None else {"holdout": holdout})
    refs = {name: await put(name, rows) for name, rows in splits.items()}
    sizes = {name: 1 if isinstance(rows, bytes | ArtifactRef) else len(rows) for name, rows in splits.items()}
    examples = sum(sizes.values())
    values: dict[str, Any] = {
        "dataset_id": dataset_id,
        "project": spec.project,
        "spec": spec,
        "spec_sha256": spec.sha256,
        "criteria_sha256": spec.criteria_sha256,
        "rows_sha256": SHA,
        "holdout": refs["train"],
        "counts": DatasetCounts(records=examples, examples=examples, **({"holdout": 0} | sizes)),
        "funnel": (),
    }
    manifest = DatasetManifest.model_validate(values | refs | changes)
    path, content = f"datasets/{dataset_id}/manifest.json", manifest.model_dump_json().encode()
    return manifest, await store.put(path, content)


def versioned(manifest: DatasetManifest, ref: ArtifactRef, **changes: Any) -> DatasetVersioned:
    """Return the event that curate would publish."""
    values: dict[str, Any] = {
        name: getattr(manifest, name)
        for name in ("project", "dataset_id", "spec_sha256", "criteria_sha256", "counts", "funnel")
    }
    return DatasetVersioned.model_validate(
        values | {"manifest": ref, "base_model": manifest.spec.base_model} | changes
    )


def trained(
    manifest: DatasetManifest, ref: ArtifactRef, adapter: AdapterRef, *, run_id: str = "run-1", **changes: Any
) -> TrainCompleted:
    """Return the event that train would publish of a run on the version."""
    values: dict[str, Any] = {
        "project": manifest.project, "run_id": run_id, "dataset_id": manifest.dataset_id, "dataset": ref,
        "manifest": ref, "criteria_sha256": manifest.criteria_sha256, "adapter": adapter, "final_loss": 1.0,
        "tokens": 10, "wall_seconds": 1.0,
    }  # fmt: skip
    return TrainCompleted.model_validate(values | changes)
