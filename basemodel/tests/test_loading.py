"""Bases and adapters load from safetensors only; a quantised base still trains after an evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tunewheel_basemodel.errors import BaseModelNotFound, InvalidAdapter
from tunewheel_basemodel.loading import check_adapter, keep_linear4bit_unpacked, load_adapter, load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_testing.tiny import write_tiny_model

TOKENS = torch.tensor([[5, 9, 33, 70, 101, 7]])


def test_the_base_loads_in_eval_mode_with_the_asked_numbers(tiny_base: BaseModel) -> None:
    for dtype in ("float32", "bfloat16"):
        model, tokenizer = load_base(tiny_base, dtype=dtype, device="cpu")
        assert model.dtype == getattr(torch, dtype)
        assert not model.training
        assert tokenizer.chat_template


PROBE = """
import sys
from pathlib import Path
import torch
compiled = torch.compile
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import locate_base_model
load_base(locate_base_model(sys.argv[1], cache_dir=Path(sys.argv[1])), device="cpu")
import bitsandbytes, peft
assert torch.compile is compiled
print("torch._inductor.compile_fx" in sys.modules)
"""


def test_loading_a_model_does_not_import_torch_s_compiler(tiny_base: BaseModel) -> None:
    command = [sys.executable, "-c", PROBE, str(tiny_base.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("config", "quantization", "reason"),
    [
        ({"model_type": "no-such-type"}, None, "no-such-type"),
        ({"max_position_embeddings": "many"}, None, "max_position_embeddings"),
        ({"intermediate_size": 128}, None, "other sizes than its config.json says"),
        ({"num_hidden_layers": 3}, None, r"lack 9 weights, the first model\.layers\.2\."),  # else random ones
        ({"num_hidden_layers": 3}, "nf4", r"lack 9 weights, the first model\.layers\.2\."),
    ],
    ids=str,
)
def test_a_config_that_is_not_the_weights_own_is_refused(
    tmp_path: Path, config, quantization, reason
) -> None:
    path = write_tiny_model(tmp_path / "a")
    base = locate_base_model(str(path), cache_dir=tmp_path)
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(written | config))
    with pytest.raises(BaseModelNotFound, match=f"cannot be loaded from .*{reason}.*; restore its files"):
        load_base(base, device="cpu", dtype="float32", quantization=quantization)


def test_a_broken_weight_file_is_named(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "a")
    base = locate_base_model(str(path), cache_dir=tmp_path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseModelNotFound, match=r"cannot be loaded from .*; restore its files"):
        load_base(base, device="cpu")


@pytest.fixture
def nf4(tmp_path: Path):
    path = write_tiny_model(tmp_path / "wide", hidden_size=64)
    base = locate_base_model(str(path), cache_dir=tmp_path)
    return load_base(base, dtype="float32", quantization="nf4", device="cpu")[0]


def test_nf4_quantises_the_linear_layers_but_not_the_head(nf4) -> None:
    from bitsandbytes.nn.modules import Linear4bit

    layers = {name for name, module in nf4.named_modules() if isinstance(module, Linear4bit)}
    assert len(layers) == 2 * 7
    assert "lm_head" not in layers
    assert all(nf4.get_submodule(name).weight.quant_state.quant_type == "nf4" for name in layers)


def test_nf4_weights_are_the_original_ones_rounded(tmp_path: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit

    base = locate_base_model(str(write_tiny_model(tmp_path / "wide", hidden_size=64)), cache_dir=tmp_path)
    name = "model.layers.1.mlp.up_proj"
    full = load_base(base, dtype="float32", device="cpu")[0].get_submodule(name).weight
    rounded = load_base(base, dtype="float32", quantization="nf4", device="cpu")[0].get_submodule(name).weight
    error = dequantize_4bit(rounded.data, rounded.quant_state).reshape(full.shape) - full
    assert 0 < error.norm() / full.norm() < 0.12  # NF4 on normal weights, blocks of 64: about 0.09


def _gradient_after_an_eval_forward(model) -> float:
    """Summed gradient of the first layer's LoRA weights in a training step that follows an evaluation."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[0], init_lora_weights=False)
    tuned = get_peft_model(model, config)
    tuned.eval()
    with torch.no_grad():
        tuned(TOKENS)
    tuned.train()
    tuned(TOKENS, labels=TOKENS).loss.backward()
    gradients = [p.grad for p in tuned.parameters() if p.requires_grad]
    assert gradients
    return sum(float(g.abs().sum()) for g in gradients if g is not None)


def test_every_4bit_layer_is_kept_from_repacking(nf4) -> None:
    from bitsandbytes.nn.modules import Linear4bit

    assert keep_linear4bit_unpacked(nf4) == 14
    assert not any(m.support_avx512bf16_for_cpu for m in nf4.modules() if isinstance(m, Linear4bit))


def test_a_4bit_base_learns_after_an_evaluation(nf4) -> None:
    assert _gradient_after_an_eval_forward(nf4) > 0


def test_without_the_cure_it_learns_nothing(nf4) -> None:
    """The known-bad case: it fails when bitsandbytes has mended itself and the cure can go."""
    from bitsandbytes.functional import has_avx512bf16
    from bitsandbytes.nn.modules import Linear4bit

    if not has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, so bitsandbytes repacks nothing on it")
    for module in nf4.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = True
    try:
        learned = _gradient_after_an_eval_forward(nf4)
    except RuntimeError as error:
        learned = 0.0 if "does not require grad" in str(error) else None
    assert learned == 0


def test_an_adapter_changes_the_answer_and_a_second_one_joins_it(tiny_base, tiny_adapter: Path) -> None:
    model, _ = load_base(tiny_base, dtype="float32", device="cpu")
    plain = model(TOKENS).logits
    tuned = load_adapter(model, tiny_adapter, "first")
    first = tuned(TOKENS).logits
    tuned = load_adapter(tuned, tiny_adapter, "second")

    assert set(tuned.peft_config) == {"first", "second"}
    assert tuned.active_adapter == "second"
    assert not torch.equal(plain, first)
    assert torch.equal(tuned(TOKENS).logits, first)
    assert not any(p.requires_grad for p in tuned.parameters())


def test_a_good_adapter_gives_its_configuration(tiny_adapter: Path) -> None:
    assert check_adapter(tiny_adapter)["r"] == 4


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "adapter_model.bin").write_bytes(b"x"), r"pickled files \(adapter_model.bin\)"),
        (lambda path: (path / "optimizer.pt").write_bytes(b"x"), "pickled files"),
        (lambda path: (path / "adapter_model.safetensors").unlink(), "holds no adapter_model.safetensors"),
        (
            lambda path: (path / "adapter_model.safetensors").write_bytes(b"\x80\x04K."),
            "not a safetensors file",
        ),
        (lambda path: (path / "adapter_config.json").unlink(), "cannot be read"),
        (lambda path: (path / "adapter_config.json").write_text("[]"), "names no peft_type"),
        (lambda path: (path / "adapter_config.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_bad_adapter_is_refused(tiny_base, tiny_adapter: Path, damage, reason: str) -> None:
    damage(tiny_adapter)
    model, _ = load_base(tiny_base, dtype="float32", device="cpu")
    with pytest.raises(InvalidAdapter, match=reason):
        load_adapter(model, tiny_adapter, "bad")


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path, tiny_adapter: Path) -> None:
    other = locate_base_model(str(write_tiny_model(tmp_path / "wide", hidden_size=64)), cache_dir=tmp_path)
    model, _ = load_base(other, dtype="float32", device="cpu")
    with pytest.raises(InvalidAdapter, match="does not fit the base model"):
        load_adapter(model, tiny_adapter, "wide")


def test_a_directory_that_does_not_exist_is_named(tiny_model, tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="no directory"):
        load_adapter(tiny_model, tmp_path / "none", "none")
