"""A whole engine on a tiny random model, and adapters for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.main import make_app
from tunewheel_engine.settings import Settings
from tunewheel_runtime.identity.access import Access

PROMPT = [5, 9, 33, 70, 101, 7, 250, 12]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return locate_base_model(str(path), cache_dir=path.parent)


@pytest.fixture
def write_adapter(tiny_base: BaseModel, tmp_path: Path) -> Callable[..., Path]:
    """Call it with a name, a seed and options of LoraConfig for a directory with a random adapter."""
    from peft import LoraConfig, get_peft_model
    from torch import manual_seed, nn

    def write(name: str, *, seed: int, **options: Any) -> Path:
        model = load_base(tiny_base, dtype="float32", device="cpu")[0]
        manual_seed(seed)
        options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **options}
        tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
        for key, weight in tuned.named_parameters():
            if "lora_B" in key:
                nn.init.normal_(weight, std=0.3)
        path = tmp_path / "adapters" / name
        tuned.save_pretrained(str(path))
        return path

    return write


@pytest.fixture
def settings(tiny_base: BaseModel, tmp_path: Path) -> Settings:
    (tmp_path / "adapters").mkdir(exist_ok=True)
    return Settings(
        base_model=str(tiny_base.path),
        cache_dir=tmp_path,
        adapter_roots=[tmp_path / "adapters"],
        max_batch=3,
        max_queue=2,
        max_context=128,
        prefill_tokens=16,
    )


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return load_engine(settings, on_failure=lambda: None)


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(
        make_app(engine, Access(engine.settings, warn=print)), base_url="http://127.0.0.1:8110"
    ) as client:
        yield client
