"""The fused LoRA layer gives what PEFT's own gives."""

from __future__ import annotations

import pytest
import torch
from tunewheel_basemodel.loading import load_base
from tunewheel_train.model.projection import fuse_lora, unfuse_lora


def adapted(model, **options):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        **options,
    )
    return get_peft_model(model, config)


def loss_and_gradients(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    ids = torch.arange(3, 63)[None]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_output_and_gradients_are_those_of_peft(tiny_base, quantization):
    base, _ = load_base(tiny_base, dtype="float32", quantization=quantization, device="cpu")
    model = adapted(base).train()
    expected_loss, expected = loss_and_gradients(model)
    assert fuse_lora(model) == 14
    loss, found = loss_and_gradients(model)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
    assert set(found) == set(expected)
    assert len(found) == 28
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_layer_with_a_frozen_bias_is_fused_and_one_that_trains_it_is_not(tiny_base, quantization):
    base, _ = load_base(tiny_base, dtype="float32", quantization=quantization, device="cpu")
    for name, module in base.named_modules():
        if name.endswith(("q_proj", "down_proj")):
            module.bias = torch.nn.Parameter(torch.linspace(-1, 1, module.out_features))
    model = adapted(base).train()
    expected_loss, expected = loss_and_gradients(model)
    assert fuse_lora(model) == 14
    loss, found = loss_and_gradients(model)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    unfuse_lora(model)
    next(p for n, p in model.named_parameters() if n.endswith("q_proj.base_layer.bias")).requires_grad_()
    assert fuse_lora(model) == 13


def test_unfusing_gives_the_layers_their_own_forward_back(tiny):
    model = adapted(tiny[0])
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    fuse_lora(model)
    assert "forward" in vars(layer)
    unfuse_lora(model)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_what_the_fused_layer_does_not_do_is_left_to_peft(tiny, options):
    assert fuse_lora(adapted(tiny[0], **options)) == 0


def test_gradients_stay_in_fp32_over_a_bf16_base(tiny_base):
    base, _ = load_base(tiny_base, dtype="bfloat16", device="cpu")
    model = adapted(base).train()
    fuse_lora(model)
    _, found = loss_and_gradients(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
