"""A tiny random model, and adapters for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.tiny import write_tiny_model


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
