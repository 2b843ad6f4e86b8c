"""Cross-entropy over a large vocabulary without fp32 copies of all logits."""

from __future__ import annotations

from typing import Any

import torch

from tunewheel_train.data.packing import PackedBatch

_ROWS = 64


def packed_losses(model: Any, row: PackedBatch) -> torch.Tensor:
    """Return the cross-entropy [targets] of every learnt token of a packed row."""
    logits = model(
        input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False,
        logits_to_keep=row.predicting, packed=row.layout,
    ).logits[0]  # fmt: skip
    return TokenCrossEntropy.apply(logits, row.targets)


class TokenCrossEntropy(torch.autograd.Function):
    """``-log softmax(logits)[target]`` [rows] in fp32; logits [rows, vocabulary], targets [rows].

    Logits are widened to fp32 a few rows at a time, so the widened rows stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        normalizers = torch.cat(
            [rows.float().logsumexp(dim=-1) for rows in logits.split(_ROWS)] or [logits.new_zeros(0)]
        )
        chosen = logits.gather(1, targets[:, None])[:, 0].float()
        ctx.save_for_backward(logits, targets, normalizers)
        return normalizers - chosen

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, normalizers = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for start in range(0, len(logits), _ROWS):
            part = slice(start, start + _ROWS)
            rows = logits[part].float().sub_(normalizers[part, None]).exp_()
            rows[torch.arange(len(rows), device=rows.device), targets[part]] -= 1.0
            gradient[part] = rows.mul_(grads[0][part, None])
        return gradient, None
