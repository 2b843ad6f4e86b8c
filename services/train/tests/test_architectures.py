"""Models that are built otherwise than Llama, in every stage and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_testing.tiny import tiny_tokenizer, write_tiny_model
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Warned

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory):
    """Write a tiny random model of a type."""

    def write(model_type: str, **shape: Any) -> str:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        path = write_tiny_model(tmp_path_factory.mktemp(model_type))
        config = AutoConfig.for_model(model_type, vocab_size=len(tiny_tokenizer()), **shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(path)
        return str(path)

    return write


@pytest.mark.parametrize("method", [pytest.param("lora", marks=pytest.mark.nightly("matrices")), "full"])
def test_a_model_with_an_attention_of_its_own_is_trained_in_every_stage_and_saved(
    written, case, pairs_path: Path, method: str
):
    # Gemma 2 caps its scores, and cannot compute by sdpa
    base = written("gemma2", **SHAPE, head_dim=8)
    preference = {"method": "dpo" if method == "lora" else "orpo", "learning_rate": 5e-3}
    run = case(base_model=base, method=method, preference=preference, preferences_path=pairs_path)
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"]
    assert outcome.metrics["preference_accuracy"] == 1.0
    assert [warning.reason for warning in run.heard(Warned)][:1] == [
        "is trained in padded batches: its attention takes softcap 50.0, which packed rows do not support"
    ]
    if method == "full":
        assert json.loads((run.job.output_dir / "config.json").read_text())["model_type"] == "gemma2"


@pytest.mark.nightly("matrices")
def test_an_adapter_of_transposed_layers_is_continued(written, case):
    base = written("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=512)
    first = case("first", base_model=base, epochs=0.5)
    first.train()
    again = case("again", base_model=base, epochs=0.5, start_from=first.job.output_dir)
    assert again.train().steps == 3


def test_a_mixture_with_attention_sinks_names_what_it_trains_and_is_padded(written, case):
    base = written("gpt_oss", **SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2)
    with pytest.raises(RunFailed) as caught:
        case("all", base_model=base).train()
    assert caught.value.field == "train.target_modules"
    assert "can be put on the experts of this mixture, which lie in 2 layers" in caught.value.reason
    assert caught.value.reason.endswith("of k_proj, o_proj, q_proj, v_proj")
    run = case("some", base_model=base, target_modules=["q_proj", "v_proj"])
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"]
    assert any("its attention takes s_aux" in warning.reason for warning in run.heard(Warned))
