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


def mixture(written, model_type: str) -> str:
    experts = {"num_local_experts": 4} if model_type == "gpt_oss" else {"num_experts": 4}
    return written(
        model_type, **SHAPE, head_dim=8, num_experts_per_tok=2, moe_intermediate_size=32, **experts
    )


@pytest.mark.parametrize("model_type", ["gpt_oss", "qwen3_moe"])
def test_experts_of_a_mixture_are_trained_saved_and_served_merged(written, case, model_type: str):
    import torch
    from tunewheel_basemodel.loading import load_adapter, load_base, merge_adapter
    from tunewheel_basemodel.locate import BaseModel
    from tunewheel_generation.lora import beyond_lora, takes_whole_model

    path = mixture(written, model_type)
    run = case("all", base_model=path)
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"]
    experts = {name: value for name, value in run.weights().items() if "experts" in name}
    learnt = [name for name, value in experts.items() if "lora_B" in name and value.abs().max() > 0]
    assert len(learnt) == 2 * 2  # two tensors of experts in each of two layers
    adapter = run.job.output_dir
    assert "target_parameters" in str(beyond_lora(adapter))
    assert takes_whole_model(adapter)

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.arange(5, 17)[None]).logits

    def base() -> Any:
        return load_base(
            BaseModel(path=Path(path), name="tiny", revision="one"), dtype="float32", device="cpu"
        )[0]

    tuned = logits(load_adapter(base(), adapter, "tuned"))
    assert (tuned - logits(base())).abs().max() > 1e-2
    torch.testing.assert_close(logits(merge_adapter(base(), adapter)), tuned, atol=1e-4, rtol=1e-4)


def test_experts_are_trained_further_by_the_same_layers_only(written, case):
    path = mixture(written, "qwen3_moe")
    first = case("first", base_model=path, epochs=0.5)
    first.train()
    again = case("again", base_model=path, epochs=0.5, start_from=first.job.output_dir)
    assert again.train().steps == 3
    fewer = case(
        "fewer", base_model=path, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        start_from=first.job.output_dir,
    )  # fmt: skip
    with pytest.raises(RunFailed) as caught:
        fewer.train()
    assert caught.value.field == "train.target_modules"


@pytest.mark.parametrize(("field", "value"), [("dora", True), ("dropout", 0.1)])
def test_what_experts_do_not_support_is_refused_by_its_name(written, case, field: str, value: Any):
    path = mixture(written, "gpt_oss")
    with pytest.raises(RunFailed) as caught:
        case("all", base_model=path, **{field: value}).train()
    assert caught.value.field == f"train.{field}"
    case("attention", base_model=path, epochs=0.5, target_modules=["q_proj"], **{field: value}).train()


def test_a_mixture_with_attention_sinks_trains_the_layers_that_are_named_and_is_padded(written, case):
    path = mixture(written, "gpt_oss")
    run = case("some", base_model=path, target_modules=["q_proj", "experts.down_proj"])
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"]
    assert {name.split(".")[-4 if "q_proj" in name else -3] for name in run.weights()} >= {"self_attn"}
    assert any("its attention takes s_aux" in warning.reason for warning in run.heard(Warned))
    with pytest.raises(RunFailed) as caught:
        case("wrong", base_model=path, target_modules=["q_proj", "experts.middle_proj"]).train()
    assert caught.value.reason.startswith("names experts.middle_proj, but the layers here are down_proj, ")


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
PACKED, REFUSED = "packed", "refused: train.target_modules"
FAMILIES: dict[str, tuple[dict[str, Any], str, str]] = {
    **{name: ({}, "14 of 14", PACKED) for name in (
        "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma3_text", "olmo", "olmo2", "olmo3",
        "granite", "smollm3", "cohere", "cohere2", "exaone4", "ernie4_5", "hunyuan_v1_dense", "helium",
    )},
    **{name: ({}, "12 of 12", PACKED) for name in (
        "phi", "glm", "glm4", "starcoder2", "opt", "apertus", "arcee",
    )},
    "gemma4_text": ({}, "19 of 19", PACKED),
    "phi3": ({}, "8 of 8", PACKED),
    "gpt_neox": ({}, "8 of 8", PACKED),
    "mixtral": ({"num_local_experts": 4, **EXPERTS}, "12 of 8", PACKED),
    "qwen2_moe": ({"num_experts": 4, **EXPERTS}, "20 of 16", PACKED),
    "qwen3_moe": ({"num_experts": 4, **EXPERTS}, "12 of 8", PACKED),
    "olmoe": ({"num_experts": 4, **EXPERTS}, "12 of 8", PACKED),
    "granitemoe": ({"num_local_experts": 4, **EXPERTS}, "12 of 8", PACKED),
    "gpt_oss": ({"num_local_experts": 4, **EXPERTS}, "12 of 8", "its attention takes s_aux"),
    "llama4_text": ({"num_local_experts": 4, **EXPERTS}, "20 of 16", PACKED),
    "gemma2": ({}, "14 of 14", "its attention takes softcap 50.0"),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4}, "8 of 0", "its attention has dropout"),
    "seed_oss": ({}, "14 of 14", "its attention has dropout"),
    "stablelm": ({}, "14 of 14", "its attention does not get the layout"),
    "nemotron": ({}, "12 of 12", "its attention does not get the layout"),
    "bloom": ({}, "8 of 8", "its layers read the neighbour"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "12 of 12", "its layers read the neighbour"),
    "minimax": ({"num_local_experts": 4, **EXPERTS}, "11 of 7", "its layers read the neighbour"),
    "mamba": ({}, REFUSED, "its layers read the neighbour"),
    "falcon_h1": ({}, REFUSED, "its layers read the neighbour"),
    "glm4_moe": ({"n_routed_experts": 4, **EXPERTS}, REFUSED, PACKED),
    "qwen3_next": ({"num_experts": 4, **EXPERTS, **HYBRID}, REFUSED, "its layers read the neighbour"),
}  # fmt: skip
"""By type of model: what its config needs besides SHAPE; how many layers and experts an adapter on all of
them reaches, of how many linear layers are fused, or that it is refused; and whether its rows are packed, or
why not."""


@pytest.mark.nightly("matrices")
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_reached_and_packed_or_refused_by_name(family: str):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.data.datasets import Encoded
    from tunewheel_train.model.adapters import with_adapter
    from tunewheel_train.model.attention import NotEquivalent, use_packed_attention
    from tunewheel_train.model.projection import fuse_lora

    more, reached, layout = FAMILIES[family]
    shape = SHAPE | {"vocab_size": 128, "pad_token_id": 0, "head_dim": 8} | more
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    examples = [
        Encoded(str(n), (*range(3, 9), *range(10 + n, 40 + n)), (0,) * 20 + (1,) * 16) for n in range(3)
    ]
    try:
        use_packed_attention(model, examples)
        laid_out = PACKED
    except NotEquivalent as error:
        laid_out = str(error)
    assert laid_out.startswith(layout)
    try:
        tuned = with_adapter(model, TrainSpec())
        count = len(tuned.targeted_module_names) + len(tuned.targeted_parameter_names)
        found = f"{count} of {fuse_lora(tuned)}"
    except RunFailed as error:
        found = f"refused: {error.field}"
    assert found == reached
