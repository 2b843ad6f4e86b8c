"""A tiny random model and a tiny dataset, trained for real in every test that trains."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.controls import Controls
from tunewheel_train.datasets import Encoded, encode_examples
from tunewheel_train.execution import Trainings
from tunewheel_train.progress import Message
from tunewheel_train.settings import Settings

WORDS = (
    "red",
    "light",
    "battery",
    "charger",
    "parcel",
    "invoice",
    "bike",
    "helmet",
    "frame",
    "brake",
    "locker",
)


def make_conversation(number: int) -> dict[str, Any]:
    """An example whose length depends on its number and whose answer on its parity."""
    question = " ".join(WORDS[(number * 7 + at) % len(WORDS)] for at in range(3 + number % 5))
    return {
        "example_id": f"ex-{number:03}",
        "messages": [
            {"role": "system", "content": "You are the help desk. Answer with JSON."},
            {"role": "user", "content": f"Ticket {number}: {question}"},
            {"role": "assistant", "content": json.dumps({"category": ("billing", "battery")[number % 2]})},
        ],
    }


@pytest.fixture
def conversation() -> Callable[[int], dict[str, Any]]:
    return make_conversation


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return locate_base_model(str(path), cache_dir=path.parent)


@pytest.fixture
def tiny(tiny_base: BaseModel):
    """(model, tokenizer) in fp32, fresh for every test."""
    return load_base(tiny_base, dtype="float32", device="cpu")


@pytest.fixture
def encoded(tiny) -> list[Encoded]:
    return encode_examples([make_conversation(number) for number in range(24)], tiny[1], max_tokens=512)[0]


@pytest.fixture(scope="session")
def train_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    pl.DataFrame([make_conversation(number) for number in range(24)]).write_parquet(path)
    return path


@pytest.fixture
def recipe(tiny_base: BaseModel, train_path: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Arguments of ``train`` for six steps of four examples; keywords replace some."""

    def arguments(name: str = "run", **changes: Any) -> dict[str, Any]:
        messages: list[Message] = []
        return {
            "base_model": str(tiny_base.path),
            "train_path": train_path,
            "output_dir": tmp_path / name / "adapter",
            "work_dir": tmp_path / name / "work",
            "cache_dir": tmp_path / "cache",
            "run_id": "run-tiny",
            "report": messages.append,
            "rank": 4,
            "alpha": 8,
            "learning_rate": 5e-3,
            "epochs": 1.0,
            "batch_size": 4,
            "micro_batch_size": 2,
            "checkpoint_steps": 2,
            "dtype": "float32",
            **changes,
        }

    return arguments


class StubLease:
    """A lease outside of Kafka."""

    class Lost(Exception):
        pass

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def check(self) -> None:
        if self.lost.is_set():
            raise self.Lost


@dataclass
class Bench:
    """A store with one dataset version in it, and what is needed to train on it."""

    store: ObjectStore
    settings: Settings
    event: DatasetVersioned
    manifest: DatasetManifest
    controls: Controls = field(default_factory=Controls)
    lease: StubLease = field(default_factory=StubLease)
    told: list[Event] = field(default_factory=list)

    @property
    def trainings(self) -> Trainings:
        return Trainings(self.store, self.settings, self.controls)

    async def tell(self, news: Event) -> None:
        self.told.append(news)

    async def train(self) -> Event:
        return await self.trainings.train(self.event, lease=self.lease, tell=self.tell)

    def on_another_machine(self, cache_dir: Path) -> Bench:
        settings = self.settings.model_copy(update={"cache_dir": cache_dir})
        return Bench(self.store, settings, self.event, self.manifest)


@pytest.fixture
async def bench(tiny_base: BaseModel, train_path: Path, tmp_path: Path) -> Callable[..., Awaitable[Bench]]:
    """Make a bench; keywords replace fields of the train spec or, with ``base_model``, the base."""

    async def make(base_model: str = str(tiny_base.path), **train: Any) -> Bench:
        store = ObjectStore(f"file://{tmp_path}/store")
        manifest = await store_dataset(store, train_path.read_bytes(), base_model, train)
        ref = await store.put(
            f"datasets/{manifest.dataset_id}/manifest.json", manifest.model_dump_json().encode()
        )
        event = DatasetVersioned(
            project=manifest.project, dataset_id=manifest.dataset_id, manifest=ref,
            spec_sha256=manifest.spec_sha256, criteria_sha256=manifest.criteria_sha256,
            base_model=base_model, counts=manifest.counts, funnel=(),
        )  # fmt: skip
        settings = Settings(cache_dir=tmp_path / "cache", train_threads=1, progress_seconds=0.0)
        return Bench(store, settings, event, manifest)

    return make


async def store_dataset(
    store: ObjectStore, parquet: bytes, base_model: str, train: dict[str, Any]
) -> DatasetManifest:
    spec = ProjectSpec.model_validate(
        {
            "project": "helpdesk",
            "base_model": base_model,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "perplexity", "maximum": 100}],
            "train": {
                "rank": 4, "alpha": 8, "learning_rate": 5e-3, "epochs": 1, "batch_size": 4,
                "micro_batch_size": 4, "checkpoint_steps": 2, **train,
            },
        }
    )  # fmt: skip
    rows = await store.put("datasets/ds-tiny/train.parquet", parquet)
    return DatasetManifest(
        dataset_id="ds-tiny", project="helpdesk", spec=spec, spec_sha256=spec.sha256,
        criteria_sha256=spec.criteria_sha256, rows_sha256="0" * 64, train=rows, holdout=rows,
        counts=DatasetCounts(records=24, examples=24, train=24, holdout=0), funnel=(),
    )  # fmt: skip
