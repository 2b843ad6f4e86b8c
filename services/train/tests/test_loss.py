from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tunewheel_train.loss import SummedCrossEntropy


@pytest.mark.parametrize("rows", [1, 64, 130])
def test_sum_and_gradient_are_pytorchs(rows: int):
    torch.manual_seed(0)
    logits = (torch.randn(rows, 50) * 4).requires_grad_()
    targets = torch.randint(0, 50, (rows,))
    expected = F.cross_entropy(logits, targets, reduction="sum")
    (expected_grad,) = torch.autograd.grad(expected / 7, logits)
    loss = SummedCrossEntropy.apply(logits, targets)
    (grad,) = torch.autograd.grad(loss / 7, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_bf16_logits_are_summed_in_fp32():
    logits = torch.zeros(4, 49_152, dtype=torch.bfloat16, requires_grad=True)
    loss = SummedCrossEntropy.apply(logits, torch.arange(4))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, 4 * torch.log(torch.tensor(49_152.0)))
