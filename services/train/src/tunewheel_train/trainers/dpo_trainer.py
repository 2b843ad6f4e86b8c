"""TRL's DPOTrainer on planned steps: learn to prefer one answer to another (arXiv:2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from tunewheel_contracts.formats.recipe import PreferenceSpec

from tunewheel_train.data.preferences import EncodedPair
from tunewheel_train.trainers import trl_config
from tunewheel_train.trainers.frame import Frame
from tunewheel_train.trainers.stepping import PlannedSteps


def make_trainer(
    frame: Frame, preference: PreferenceSpec, arguments: dict[str, Any], **trl: Any
) -> DpoTrainer:
    return DpoTrainer(args=DPOConfig(**trl_config.pairs_arguments(arguments, preference)), **trl)


class DpoTrainer(PlannedSteps, DPOTrainer):
    """Trains the adapter of a PEFT model on the pairs of ``course``. The reference is the adapter before the
    first step, which TRL keeps as a second, frozen adapter ``ref``."""

    def __init__(self, **trl: Any) -> None:
        self._lay_out = DataCollatorForPreference(pad_token_id=trl["processing_class"].pad_token_id)
        super().__init__(**trl)

    def lay_out(self, items: Sequence[EncodedPair]) -> dict[str, torch.Tensor]:
        return self._lay_out([item.as_row() for item in items])

    def weight_of(self, items: Sequence[EncodedPair]) -> int:
        return len(items)

    def loss_of(self, model: Any, piece: dict[str, torch.Tensor], weight: float) -> torch.Tensor:
        pairs = len(piece["input_ids"]) // 2
        return self.compute_loss(model, piece) * (pairs / weight)
