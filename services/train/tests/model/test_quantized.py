"""QLoRA goes on learning after the model has been evaluated."""

from __future__ import annotations

import pytest
import torch
from tunewheel_basemodel.precision import compute_dtype
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.model import modeling


def steps_change_the_loss(model) -> bool:
    ids = torch.arange(3, 35)[None]
    trained = [p for p in model.parameters() if p.requires_grad]
    losses = []
    for _ in range(4):
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        assert all(p.grad is not None for p in trained)
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.5 * parameter.grad
                parameter.grad = None
    return losses[-1] < losses[0] - 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_goes_on_after_an_evaluation(tiny_base, dtype):
    if dtype == "bfloat16" and compute_dtype() != "bfloat16":
        pytest.skip("this processor has no bf16 instructions")
    from bitsandbytes.nn import Linear4bit

    recipe = TrainSpec(method=TrainMethod.QLORA, rank=4, alpha=8, seed=1)
    model, _ = modeling.load(tiny_base, recipe, precision=dtype)
    modeling.prepare_parameters(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(3, 35)[None])
    model.train()
    linear = [m for m in model.modules() if type(m) is Linear4bit]
    assert len(linear) == 14
    assert not any(m.support_avx512bf16_for_cpu for m in linear)
    assert steps_change_the_loss(model)
