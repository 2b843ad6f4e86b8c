"""A finished run of a tiny model, as train would leave it in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import adapter_of
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.datasets import trained as completed
from tunewheel_testing.log import wrap
from tunewheel_testing.specs import small_spec
from tunewheel_testing.tiny import write_tiny_model

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
        declared = small_spec(project, **{"criteria": LENIENT, **spec})
        rows = [example(n) for n in range(examples)]
        version = await put_dataset(
            self.store, declared, dataset_id=f"ds-{project}-{run}", train=rows, holdout=rows,
            rows_sha256=content_sha256(run),
        )  # fmt: skip
        model_id = f"{project}-{run}"
        files = await self.store.put_directory(f"adapters/{model_id}", adapter or self.adapter)
        base = BaseModelRef(name=str(self.base.path), revision=self.base.revision)
        made = adapter_of(model_id, files=files, base=base, method=method)
        return wrap(completed(*version, made, run_id=f"run-{model_id}"))


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
