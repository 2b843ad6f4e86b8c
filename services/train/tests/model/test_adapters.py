"""Which layers of a model get an adapter."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.errors import RunFailed
from tunewheel_train.model.adapters import continue_adapter, with_adapter

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
SEEN: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
LOOKING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (TEXT | {"model_type": "gemma3_text"}, SEEN | {"model_type": "siglip_vision_model"}),
    "llava": (TEXT | {"model_type": "llama"}, SEEN | {"model_type": "clip_vision_model"}),
    "qwen2_5_vl": (
        TEXT | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 4, "out_hidden_size": 32},
    ),
}


def looking(model_type: str) -> Any:
    """A tiny random model with a vision tower."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    text, vision = LOOKING[model_type]
    config = AutoConfig.for_model(model_type, text_config=text, vision_config=vision)
    return AutoModelForImageTextToText.from_config(config)


def trained(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("model_type", LOOKING)
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_a_vision_tower_gets_no_adapter(model_type: str, targets: Any) -> None:
    model = looking(model_type)
    names = trained(with_adapter(model, TrainSpec(target_modules=targets)))
    assert len(names) == 2 * 2 * (7 if targets == "all-linear" else len(targets))
    assert all(".language_model." in name for name in names)


def test_a_layer_of_the_vision_tower_alone_is_no_target() -> None:
    with pytest.raises(RunFailed) as caught:
        with_adapter(looking("gemma3"), TrainSpec(target_modules=("out_proj",)))
    assert caught.value.field == "train.target_modules"


def test_an_adapter_with_a_part_on_the_vision_tower_is_not_trained_further(tmp_path: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(looking("gemma3"), config).save_pretrained(tmp_path / "old")
    with pytest.raises(RunFailed) as caught:
        continue_adapter(looking("gemma3"), TrainSpec(), tmp_path / "old")
    assert caught.value.field == "train.target_modules"
    with_adapter(looking("gemma3"), TrainSpec()).save_pretrained(tmp_path / "new")
    names = trained(continue_adapter(looking("gemma3"), TrainSpec(), tmp_path / "new"))
    assert len(names) == 28


def test_a_head_that_is_called_decoder_is_no_decoder() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {k: v for k, v in TEXT.items() if k not in ("num_key_value_heads", "head_dim")}
    config = AutoConfig.for_model("modernbert-decoder", **shape, sep_token_id=3, cls_token_id=4)
    model = AutoModelForCausalLM.from_config(config)
    assert model.get_decoder() is model.get_output_embeddings()
    names = trained(with_adapter(model, TrainSpec()))
    assert names
    assert not any("decoder" in name for name in names)


FUSED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
ACCEPTED: dict[str, set[str]] = {
    "llama": FUSED,
    "mistral": FUSED,
    "qwen2": FUSED,
    "qwen3": FUSED,
    "gemma2": FUSED,
    "gemma3_text": FUSED,
    "granite": FUSED,
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "qwen3_5_text": FUSED | {"in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj", "conv1d"},
}
"""The last parts of the names of layers on which vLLM 0.32 loads an adapter: its linear layers, fused ones by
the parts in ``packed_modules_mapping`` (vllm/model_executor/models, vllm/lora/worker_manager.py)."""


@pytest.mark.parametrize("model_type", ACCEPTED)
def test_the_keys_of_an_adapter_are_those_that_vllm_accepts(model_type: str, tmp_path: Any) -> None:
    import json

    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    own: dict[str, Any] = {}
    if model_type == "qwen3_5_text":
        sizes = dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8)
        own = sizes | {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
                       "linear_num_value_heads": 4}  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **TEXT, **own))
    with_adapter(model, TrainSpec()).save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        keys = list(file.keys())
    assert len(keys) >= 2 * 2 * 4
    for key in keys:  # as vLLM's parse_fine_tuned_lora_name
        prefix, *path, lora, kind = key.removeprefix("base_model.").split(".")
        assert (prefix, path[0], kind) == ("model", "model", "weight")
        assert lora in ("lora_A", "lora_B")
        assert path[-1] in ACCEPTED[model_type]
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    refused = ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication")
    assert not any(told.get(name) for name in (*refused, "use_qalora", "rank_pattern", "alpha_pattern"))
    assert told["bias"] == "none"
    assert told["init_lora_weights"] is True


def test_vllm_accepts_no_layer_of_a_vision_tower(tmp_path: Any) -> None:
    """vLLM maps ``model.language_model.`` of Gemma 3 to its own name."""
    with_adapter(looking("gemma3"), TrainSpec()).save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        names = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    assert all(name.startswith("model.language_model.layers.") for name in names)
    assert {name.split(".")[-3] for name in names} == FUSED
