"""Adapters in a mixed batch give what peft gives, one at a time."""

from __future__ import annotations

import json

import pytest
import torch
from tunewheel_basemodel.errors import InvalidAdapter
from tunewheel_generation.lora import Mixture, beyond_lora, read_lora
from tunewheel_generation.runner import load_runner

PROMPT = [5, 9, 33, 70, 101, 7, 250, 12]
VARIANTS = {
    "plain": {},
    "wide": {"r": 9, "lora_alpha": 3, "target_modules": ["down_proj", "gate_proj", "o_proj"]},
    "rslora": {"use_rslora": True, "r": 8},
    "patterns": {"rank_pattern": {"layers.0.self_attn.q_proj": 7}, "alpha_pattern": {"v_proj": 31}},
    "one layer": {"layers_to_transform": [1]},
    "everywhere": {"target_modules": "all-linear", "init_lora_weights": "gaussian", "lora_dropout": 0.5},
}


@pytest.fixture
def runner(tiny_base):
    return load_runner(
        tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=8, tokens=64
    )


def read(runner, path):
    return read_lora(path, layers=runner.layers, dtype=torch.float32, device=runner.device)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_is_what_peft_makes_of_it(runner, tiny_model, write_adapter, variant: str) -> None:
    from peft import PeftModel

    path = write_adapter(variant, seed=1, **VARIANTS[variant])
    with torch.inference_mode():
        plain = tiny_model(torch.tensor([PROMPT])).logits[0, -1]
        expected = (
            PeftModel.from_pretrained(tiny_model, str(path)).eval()(torch.tensor([PROMPT])).logits[0, -1]
        )
    lora = read(runner, path)
    assert torch.allclose(runner.read([PROMPT], [0], [lora])[0], expected, atol=1e-3)
    with torch.inference_mode(), runner.lent(lora) as model:
        assert torch.allclose(model(torch.tensor([PROMPT])).logits[0, -1], expected, atol=1e-3)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_a_mixed_batch_gives_each_row_its_own(runner, write_adapter) -> None:
    loras = [None, *(read(runner, write_adapter(name, seed=2, **VARIANTS[name])) for name in VARIANTS), None]
    lengths = [len(PROMPT)] * len(loras)
    alone = []
    for lora in loras:
        runner.read([PROMPT], [0], [lora])
        alone.append(runner.read([[3]], lengths[:1], [lora])[0])
    runner.read([PROMPT] * len(loras), [0] * len(loras), loras)
    mixed = runner.read([[3]] * len(loras), lengths, loras)
    for row, expected in enumerate(alone):
        assert torch.allclose(mixed[row], expected, atol=1e-4)
    assert torch.allclose(mixed[0], mixed[-1], atol=1e-5)
    assert not torch.allclose(mixed[0], mixed[1], atol=1e-2)


def test_the_mixture_is_laid_anew_only_when_it_must(runner, write_adapter, monkeypatch) -> None:
    first, second, third = (read(runner, write_adapter(str(seed), seed=seed)) for seed in range(3))
    mixture = Mixture()
    laid = []
    lay = mixture._lay
    monkeypatch.setattr(mixture, "_lay", lambda members: (laid.append(list(members)), lay(members)))
    assert mixture.deltas([None, None]) == {}
    assert mixture.deltas([first, first]) is first.alone
    mixture.deltas([first, second])
    mixture.deltas([second, None, first])
    mixture.deltas([None, second])
    assert laid == [[first, second]]
    mixture.deltas([third, second])
    assert laid == [[first, second], [third, second]]


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_more_than_a_lora_is_part_of_a_model_of_its_own(
    tiny_base, write_adapter, quantization: str | None
) -> None:
    from peft import PeftModel
    from tunewheel_basemodel.loading import load_base

    path = write_adapter("dora", seed=1, use_dora=True)
    assert "use_dora" in (beyond_lora(path) or "")
    assert beyond_lora(write_adapter("plain", seed=1)) is None
    numbers = {"trained_dtype": "float32", "dtype": "float32"}
    own = load_runner(tiny_base, quantization=quantization, **numbers, rows=1, tokens=64, adapter=path)
    model = load_base(tiny_base, dtype="float32", quantization=quantization, device="cpu")[0]
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(model, str(path)).eval()(torch.tensor([PROMPT])).logits[0, -1]
    assert torch.allclose(own.read([PROMPT], [0], [None])[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"target_modules": ["embed_tokens"]}, "not a linear layer"),
        ({"target_modules": ["lm_head"]}, "base_layer"),
    ],
)
def test_adapters_other_than_plain_lora_are_refused(runner, write_adapter, options, reason: str) -> None:
    with pytest.raises(InvalidAdapter, match=reason):
        read(runner, write_adapter("odd", seed=1, **options))


def test_another_kind_of_adapter_is_refused(runner, write_adapter) -> None:
    path = write_adapter("ia3", seed=1)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(InvalidAdapter, match="IA3"):
        read(runner, path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda tensor: tensor[:, :3].contiguous(), "whose sizes are"),
        (lambda tensor: tensor.mul(float("nan")), "not finite"),
    ],
)
def test_matrices_that_would_break_the_batch_are_refused(runner, write_adapter, spoil, reason: str) -> None:
    from safetensors.torch import load_file, save_file

    path = write_adapter("spoilt", seed=1) / "adapter_model.safetensors"
    save_file({key: spoil(value) for key, value in load_file(path).items()}, path)
    with pytest.raises(InvalidAdapter, match=reason):
        read(runner, path.parent)


def test_half_an_adapter_is_refused(runner, write_adapter) -> None:
    from safetensors.torch import load_file, save_file

    path = write_adapter("half", seed=1) / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if "lora_A" in key}, path)
    with pytest.raises(InvalidAdapter, match="whose sizes are"):
        read(runner, path.parent)
