"""TRL's SFTTrainer with the loss on the assistant's tokens only. Logits of other tokens are not computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.packing import PackedBatch, pack, pad
from tunewheel_train.trainers.loss import packed_losses
from tunewheel_train.trainers.stepping import PlannedSteps, on_device

Micro = PackedBatch | dict[str, torch.Tensor]


class SftTrainer(PlannedSteps, SFTTrainer):
    """Trains on the examples of ``course``.

    ``packed``: the model takes packed rows (``model/attention.py``); else padded batches go through TRL's
    own loss.
    """

    def __init__(self, *, packed: bool, share_prefix: bool, **trl: Any) -> None:
        self._packed = packed
        self._share_prefix = share_prefix
        super().__init__(**trl)

    def lay_out(self, items: Sequence[Encoded]) -> Any:
        if self._packed:
            return pack(items, share_prefix=self._share_prefix)
        return pad(items, self.processing_class.pad_token_id)  # type: ignore[missing-attribute]

    def weight_of(self, items: Sequence[Encoded]) -> int:
        return sum(sum(item.mask[1:]) for item in items)

    def loss_of(self, model: Any, piece: Micro, weight: float) -> torch.Tensor:
        if isinstance(piece, dict):
            # TRL divides by at least 1, but ``weight`` can be smaller. So divide by it here.
            loss: Any = self.compute_loss(model, dict(piece), num_items_in_batch=torch.tensor(1.0))
            return loss / weight
        return packed_losses(model, piece).sum() / weight

    def validate(self) -> float:
        """Return the mean loss per learnt token over the course's validation examples. Processes that train
        together divide the examples like those of a step."""
        model: Any = self.model
        mine = self.cut(sorted(self.course.validation, key=len))
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                losses = [
                    sum(self.loss_of(model, on_device(p, self.args.device), weight) for p, weight in pieces)
                    for pieces in mine.parts
                ]
        finally:
            model.train(was_training)
        return float(self.accelerator.reduce(torch.as_tensor(sum(losses)), "mean"))
