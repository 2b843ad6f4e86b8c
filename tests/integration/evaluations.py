"""A finished run of a tiny model, as train would leave it in the store."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

from .specs import small_spec

THINGS = ("ring ", "saddle ", "brake ", "lamp ", "tyre ", "chain ", "pedal ", "wheel ")
LENIENT = [{"metric": "perplexity", "minimum": 1.0}]
"""What every model passes."""


@dataclass(frozen=True)
class Ground:
    """A store, a tiny base model and a LoRA adapter on it."""

    store: ObjectStore
    base: BaseModel
    adapter: Path
    other: Path
    """Another adapter."""

    async def trained(
        self,
        project: str,
        run: str,
        *,
        examples: int = 6,
        method: str = "lora",
        adapter: Path | None = None,
        **spec: Any,
    ) -> Envelope[TrainCompleted]:
        """Store a dataset and the adapter; returns the event that announces the run ``<project>-<run>``."""
        dataset, manifest = await self._dataset(project, run, examples, spec)
        model_id = f"{project}-{run}"
        path = f"adapters/{model_id}"
        files = await self.store.put_directory(path, adapter or self.adapter)
        made = AdapterRef.model_validate(
            {
                "model_id": model_id,
                "path": path,
                "files": files,
                "base": BaseModelRef(name=str(self.base.path), revision=self.base.revision),
                "method": method,
            }
        )
        data = TrainCompleted(
            project=project, run_id=f"run-{model_id}", dataset_id=manifest.dataset_id, dataset=dataset,
            manifest=dataset, criteria_sha256=manifest.criteria_sha256, adapter=made, final_loss=1.0,
            tokens=1, wall_seconds=1.0,
        )  # fmt: skip
        return new_event(data, source="/test")

    async def _dataset(
        self, project: str, run: str, examples: int, changes: dict[str, Any]
    ) -> tuple[ArtifactRef, DatasetManifest]:
        spec = small_spec(project, **{"criteria": LENIENT, **changes})
        dataset_id = f"ds-{project}-{run}"
        buffer = io.BytesIO()
        pl.DataFrame([example(n) for n in range(examples)]).write_parquet(buffer)
        holdout = await self.store.put(f"datasets/{dataset_id}/holdout.parquet", buffer.getvalue())
        manifest = DatasetManifest(
            dataset_id=dataset_id, project=project, spec=spec, spec_sha256=spec.sha256,
            criteria_sha256=spec.criteria_sha256, rows_sha256=content_sha256(run), train=holdout,
            holdout=holdout, funnel=(),
            counts=DatasetCounts(records=examples, examples=examples, train=examples, holdout=examples),
        )  # fmt: skip
        path = f"datasets/{dataset_id}/manifest.json"
        return await self.store.put(path, manifest.model_dump_json().encode()), manifest


def make_ground(folder: Path) -> Ground:
    """Make the model and the adapters below ``folder``."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = locate_base_model(str(write_tiny_model(folder / "tiny")), cache_dir=folder)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    for seed, name in enumerate(("adapter", "other"), start=1):
        torch.manual_seed(seed)
        model, _ = load_base(base, dtype="float32", device="cpu")
        get_peft_model(model, config).save_pretrained(folder / name)
    return Ground(ObjectStore((folder / "store").as_uri()), base, folder / "adapter", folder / "other")


def example(n: int) -> dict[str, Any]:
    """Return the n-th held-out row. The first eight are eight independent observations."""
    return {
        "example_id": f"ex-{n}",
        "messages": [
            {"role": "system", "content": "Answer as JSON."},
            {"role": "user", "content": f"Ticket {n}: " + THINGS[n % len(THINGS)] * (1 + n // len(THINGS))},
            {"role": "assistant", "content": json.dumps({"category": ("bell", "horn")[n % 2]})},
        ],
        "label": ("bell", "horn")[n % 2],
        "group": f"g-{n}",
        "trust": "expert",
        "record_ids": [f"rec-{n}"],
    }
