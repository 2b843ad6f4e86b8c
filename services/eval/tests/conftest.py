"""A tiny random base with two adapters, a dataset in an object store, and the run that came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval import evaluation
from tunewheel_eval.job import Job, Progress
from tunewheel_eval.measuring import measure
from tunewheel_eval.worker_process import OnProgress, Stopped
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import BASE, adapter_of, safetensors
from tunewheel_testing.datasets import put_dataset, trained
from tunewheel_testing.tiny import write_random_adapter

MakeRun = Callable[..., Awaitable[TrainCompleted]]

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["category"],
    "properties": {"category": {"enum": ["billing", "delivery"]}},
}
ASKED = [
    "Where is my parcel?",
    "I was charged twice, please send the invoice again!",
    "The parcel has not arrived",
    "What does the tax on my bill mean? I have asked before and nobody told me.",
    "You sent it to the wrong address",
    "refund",
]


@pytest.fixture(scope="session")
def tiny(tiny_base: BaseModel) -> tuple[Any, Any]:
    """Model and tokenizer, without adapters."""
    return load_base(tiny_base, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def adapters(tiny_base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two LoRA directories that change what the base says."""
    root = tmp_path_factory.mktemp("adapters")
    one, two = (write_random_adapter(tiny_base, root / str(seed), seed=seed) for seed in (1, 2))
    return one, two


def example(number: int, asked: str, answer: str, *, system: str = "You are the help desk.") -> ChatExample:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer},
    ]
    return ChatExample.model_validate(
        {
            "example_id": f"ex-{number}",
            "messages": messages,
            "group": f"g-{number}",
            "trust": "expert",
            "record_ids": [f"rec-{number}"],
        }
    )


@pytest.fixture(scope="session")
def examples() -> tuple[ChatExample, ...]:
    labels = ("delivery", "billing", "delivery", "billing", "delivery", "billing")
    return tuple(
        example(n, asked, json.dumps({"category": label}))
        for n, (asked, label) in enumerate(zip(ASKED, labels, strict=True))
    )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store")


@pytest.fixture
def regression_set(tmp_path: Path) -> Path:
    lines = [
        {"item_id": "a", "kind": "recall", "prompt": "The sky is", "choices": ["blue", "loud"],
         "answer": "blue", "match": "choice"},
        {"item_id": "b", "kind": "recall", "prompt": "2 + 2 =", "choices": ["4", "5", "seventeen"],
         "answer": "4", "match": "choice"},
        {"item_id": "c", "kind": "echo", "prompt": "Say yes", "answer": "yes", "match": "contains"},
    ]  # fmt: skip
    path = tmp_path / "regression.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_spec(**changes: Any) -> ProjectSpec:
    plain: dict[str, Any] = {
        "project": "desk",
        "base_model": "tiny",
        "task": {
            "system_prompt": "You are the help desk.",
            "output_schema": SCHEMA,
            "label_field": "category",
            "max_output_tokens": 12,
            "constrained": False,  # Constrained answers of models that differ may be equal.
        },
        # Nothing that a random model could miss: these tests are about the machinery.
        "criteria": [{"metric": "perplexity", "minimum": 1.0}],
    }
    evaluation = {"other_mode": 0, **changes.pop("evaluation", {})}
    return ProjectSpec.model_validate({**plain, **changes, "evaluation": evaluation})


async def put_directory(
    store: ObjectStore, base: BaseModelRef, directory: Path, *, model_id: str
) -> AdapterRef:
    files = await store.put_directory(f"adapters/{model_id}", directory)
    return adapter_of(model_id, files=files, base=base)


@pytest.fixture
def hollow_adapter(tmp_path: Path) -> Path:
    """What an adapter looks like from outside, made without torch."""
    directory = tmp_path / "hollow"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (directory / "adapter_model.safetensors").write_bytes(safetensors())
    return directory


@pytest.fixture
def make_run(store: ObjectStore, hollow_adapter: Path, examples: tuple[ChatExample, ...]) -> MakeRun:
    """Put a dataset and an adapter into the store; returns the event that train would publish."""

    async def make(
        spec: ProjectSpec | None = None,
        *,
        run_id: str = "run-1",
        dataset_id: str = "ds-1",
        holdout: tuple[ChatExample, ...] = examples,
        adapter: Path = hollow_adapter,
        base: BaseModelRef = BASE,
        **changes: Any,
    ) -> TrainCompleted:
        spec, rows = spec or make_spec(), [one.model_dump(mode="json") for one in holdout]
        version = await put_dataset(store, spec, dataset_id=dataset_id, train=rows, holdout=rows)
        put = await put_directory(store, base, adapter, model_id=f"{spec.project}-{run_id}")
        return trained(*version, put, run_id=run_id, **changes)

    return make


@pytest.fixture
def real_run(make_run: MakeRun, tiny_base: BaseModel, adapters: tuple[Path, Path]) -> MakeRun:
    """``make_run`` with files that load."""
    base = BaseModelRef(name=str(tiny_base.path), revision=tiny_base.revision)
    return partial(make_run, adapter=adapters[0], base=base)


@pytest.fixture
def serving() -> Callable[..., ServingDesired]:
    """What the registry wants served: the model of the run that an event completed."""
    return _serving


def _serving(event: TrainCompleted, *, role: str = "production", bare: bool = False) -> ServingDesired:
    adapter = None if bare else event.adapter
    route: dict[str, Any] = {"model_id": event.adapter.model_id, "role": role, "percent": 100}
    return ServingDesired.model_validate(
        {
            "project": event.project, "generation": 3, "base": event.adapter.base, "system_prompt": "s",
            "desired": {"routes": [route | {"adapter": adapter, "dataset_id": "d"}]},
        }
    )  # fmt: skip


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without the seconds that the worker's process needs to import torch."""

    async def run(job: Path, *, lost: asyncio.Event, on_progress: OnProgress, worker: Sequence[str]) -> None:
        if lost.is_set():
            raise Stopped
        said: list[Progress] = []
        await asyncio.to_thread(measure, Job.model_validate_json(job.read_text("utf-8")), said.append)
        for line in said:
            await on_progress(line)

    monkeypatch.setattr(evaluation, "run_worker", run)
