"""A tiny random model, and adapters for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_random_adapter, write_tiny_model


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return locate_base_model(str(path), cache_dir=path.parent)


@pytest.fixture
def tiny_model(tiny_base: BaseModel) -> Any:
    return load_base(tiny_base, dtype="float32", device="cpu")[0]


@pytest.fixture
def write_adapter(tiny_base: BaseModel, tmp_path: Path) -> Callable[..., Path]:
    """Call it with a name, a seed and options of LoraConfig for a directory with a random adapter."""

    def write(name: str, **options: Any) -> Path:
        return write_random_adapter(tiny_base, tmp_path / "adapters" / name, **options)

    return write
