"""The real base model for a step or two by every method: what a tiny random one cannot show, such as tied
embeddings, a GGUF's weights and the model's own chat template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tunewheel_basemodel.locate import BaseModel
from tunewheel_train.data.datasets import encode_examples
from tunewheel_train.exporting.merging import Trained, export_merged
from tunewheel_train.model.modeling import load_tokenizer
from tunewheel_train.progress import Progressed

pytestmark = pytest.mark.model

EXAMPLES = 4
TWO_STEPS = {
    "rank": 4, "alpha": 8, "learning_rate": 2e-3, "batch_size": 2, "micro_batch_size": 2, "epochs": 1.0,
    "checkpoint_steps": 1, "warmup_fraction": 0.0, "scheduler": "constant",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(conversation_of) -> list[dict[str, Any]]:
    return [conversation_of(number) for number in range(EXAMPLES)]


@pytest.fixture(scope="module")
def make(cases, smollm2: BaseModel, rows, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Make a case of two steps on the real model."""
    folder = tmp_path_factory.mktemp("smollm2")
    pl.DataFrame(rows).write_parquet(folder / "train.parquet")
    given = {"base_model": str(smollm2.path), "train_path": folder / "train.parquet"}
    return lambda name, **changes: cases(folder)(name, **(given | TWO_STEPS | changes))


@pytest.fixture(scope="module")
def lora(make) -> Any:
    """An uninterrupted LoRA run."""
    torch.set_num_threads(1)  # before the fixture of every test does: sums depend on it
    run = make("lora")
    run.train()
    return run


def losses(run: Any) -> list[float]:
    return [message.loss for message in run.heard(Progressed)]


def test_lora_learns_in_two_steps(lora):
    first, second = losses(lora)
    assert second < first < 6.0  # a model that was read wrongly begins near ln 49,152 = 10.8
    assert any(value.abs().max() > 0 for name, value in lora.weights().items() if "lora_B" in name)


@pytest.mark.nightly("models")
def test_qlora_begins_near_lora_and_learns(make, lora):
    run = make("qlora", method="qlora")
    run.train()
    assert losses(run)[0] == pytest.approx(losses(lora)[0], rel=0.15)
    assert losses(run)[1] < losses(run)[0]


@pytest.mark.nightly("models")
def test_full_begins_where_lora_does_and_writes_a_whole_model(make, lora, smollm2: BaseModel):
    run = make("full", method="full", epochs=0.5, learning_rate=1e-4, keep_checkpoints=1)
    run.train()
    assert losses(run) == pytest.approx(losses(lora)[:1], abs=1e-3)
    weights = run.weights()
    assert sum(value.numel() for value in weights.values()) == 134_515_008  # embeddings once: they are tied
    saved, ours = (load_tokenizer(one) for one in (replace(smollm2, path=run.job.output_dir), smollm2))
    assert saved.get_vocab() == ours.get_vocab(), "engines serve it with the base's tokenizer"
    assert saved.chat_template == ours.chat_template


@pytest.mark.nightly("models")
def test_an_exported_model_answers_as_its_adapter(lora, smollm2: BaseModel, rows, tmp_path: Path):
    encoded, _ = encode_examples(rows, load_tokenizer(smollm2), max_tokens=256)
    trained = Trained("smollm2", smollm2, lora.job.output_dir)
    prompts = [example.input_ids for example in encoded]
    parity = export_merged(trained, tmp_path / "merged", prompts=prompts)
    assert parity.mean_difference < parity.tolerance == 1e-3
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size > 500_000_000
