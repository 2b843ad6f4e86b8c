from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tunewheel_train.trainers.loss import TokenCrossEntropy


@pytest.mark.parametrize("rows", [1, 64, 130])
def test_loss_and_gradient_of_every_token_are_pytorchs(rows: int):
    torch.manual_seed(0)
    logits = (torch.randn(rows, 50) * 4).requires_grad_()
    targets = torch.randint(0, 50, (rows,))
    weights = torch.rand(rows)
    expected = F.cross_entropy(logits, targets, reduction="none")
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), logits)
    loss = TokenCrossEntropy.apply(logits, targets)
    (grad,) = torch.autograd.grad((loss * weights).sum(), logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_bf16_logits_give_fp32_losses():
    logits = torch.zeros(4, 49_152, dtype=torch.bfloat16, requires_grad=True)
    loss = TokenCrossEntropy.apply(logits, torch.arange(4))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.log(torch.tensor(49_152.0)).expand(4))
