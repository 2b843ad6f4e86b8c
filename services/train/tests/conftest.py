"""A tiny random model and a tiny dataset, trained for real in every test that trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_train.datasets import Encoded, encode_examples
from tunewheel_train.progress import Message

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
