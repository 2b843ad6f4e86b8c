"""A tiny random model for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base: BaseModel):
    return load_base(tiny_base, dtype="float32", device="cpu")[1]


@pytest.fixture
def tiny_model(tiny_base: BaseModel):
    return load_base(tiny_base, dtype="float32", device="cpu")[0]


@pytest.fixture
def tiny_adapter(tiny_model, tmp_path: Path) -> Path:
    """A LoRA adapter with non-zero B, so that it changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(tiny_model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"
