from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_planner.shapes import KNOWN, shape_of

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of the model cards
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
    ],
)
def test_parameters_are_those_of_the_model_card(name: str, parameters: int) -> None:
    assert KNOWN[name].parameters == parameters


def test_qkv_biases_are_too_few_to_matter() -> None:
    assert KNOWN["Qwen/Qwen2.5-14B-Instruct"].parameters == pytest.approx(14_770_033_664, rel=1e-3)


def test_a_config_is_read_and_its_gaps_are_filled_as_transformers_does() -> None:
    assert shape_of(LLAMA) == KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    bare = {k: v for k, v in LLAMA.items() if k not in ("head_dim", "num_key_value_heads")}
    assert (shape_of(bare).head_size, shape_of(bare).kv_heads) == (64, 32)
    assert shape_of({"model_type": "gemma3", "text_config": LLAMA}) == shape_of(LLAMA)


@pytest.mark.parametrize(
    ("family", "told", "capped"),
    [
        ("gemma2", {}, True),
        ("gemma2", {"attn_logit_softcapping": 50.0}, True),
        ("gemma2", {"attn_logit_softcapping": None}, False),
        ("gemma3_text", {}, False),
        ("gemma3_text", {"attn_logit_softcapping": None}, False),
        ("grok", {"attn_logit_softcapping": 30.0}, True),
        ("llama", {}, False),
    ],
)
def test_scores_are_capped_where_transformers_caps_them(
    family: str, told: dict[str, Any], capped: bool
) -> None:
    assert shape_of(LLAMA | {"model_type": family} | told).capped is capped


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "it has no hidden_size"),
        ({"model_type": "gpt2", "n_embd": 768}, "it has no hidden_size"),
        ({k: v for k, v in LLAMA.items() if k != "intermediate_size"}, "it has no intermediate_size"),
        (LLAMA | {"hidden_size": "2048x"}, "hidden_size is text; give a whole number"),
        (LLAMA | {"vocab_size": 0}, "vocab_size is too small; give more than 0"),
        (LLAMA | {"num_attention_heads": 0}, "num_attention_heads is too small; give more than 0"),
        ({"text_config": [1]}, "it has no hidden_size"),
        (LLAMA | {"num_local_experts": 8}, "it has no num_experts_per_tok"),
        (LLAMA | {"kv_lora_rank": 512}, "kv_lora_rank is set, and it counts no compressed keys"),
        (
            LLAMA | {"layer_types": ["linear_attention", "full_attention"]},
            "layer_types has linear_attention, ",
        ),
    ],
)
def test_a_config_of_another_kind_names_the_base_model(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec, match=f"the planner cannot read .{words}") as caught:
        shape_of(config)
    assert caught.value.field == "base_model"


def test_loras_size_is_that_of_its_matrices() -> None:
    shape = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
    # peft prints 4,884,480 trainable parameters for rank 16 on all linear layers
    assert shape.adapter_parameters(16) == 4_884_480


@pytest.mark.parametrize(
    ("targets", "blocks"),
    [
        ("all-linear", (24,) * 7),
        (["q_proj", "down_proj"], (24, 0, 0, 0, 0, 0, 24)),
        (["self_attn.q_proj"], (24, 0, 0, 0, 0, 0, 0)),
        (["layers.3.self_attn.v_proj", "layers.13.self_attn.v_proj"], (0, 0, 2, 0, 0, 0, 0)),
        (["qkv_proj", "v_proj"], (24, 24, 24, 0, 0, 0, 0)),
        (["wqkv"], (24,) * 7),  # whatever that is, it is not nothing
    ],
    ids=str,
)
def test_the_layers_that_get_an_adapter_are_found_by_the_ends_of_their_names(targets, blocks) -> None:
    shape = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]
    assert shape.adapted(targets) == blocks
    sizes = zip(blocks, shape.linears, strict=True)
    assert shape.adapter_parameters(8, targets) == sum(n * 8 * (a + b) for n, (a, b) in sizes)


def test_a_mixture_is_read_with_its_shared_expert() -> None:
    told = LLAMA | {"num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512}
    shape = shape_of(told | {"shared_expert_intermediate_size": 1024})
    assert (shape.experts, shape.active, shape.intermediate, shape.shared) == (64, 4, 512, 1024)
    more = shape.parameters - shape_of(told).parameters
    assert more == shape.layers * 3 * shape.hidden * 1024
    again = shape_of(told | {"n_shared_experts": 2})
    assert again.shared == 2 * 512
