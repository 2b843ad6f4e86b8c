"""Odds ratio preference optimisation (arXiv:2403.07691): learns the chosen answer and makes the rejected one
less likely, without a reference model.

TRL's own ORPO trainer is experimental. Here the loss is our own, used in SFTTrainer. A test compares it with
TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PrinterCallback
from trl.trainer.sft_trainer import SFTTrainer

from tunewheel_train.data.packing import PackedBatch, pack, pad
from tunewheel_train.data.preferences import EncodedPair
from tunewheel_train.trainers.course import Course
from tunewheel_train.trainers.loss import TokenCrossEntropy
from tunewheel_train.trainers.stepping import PlannedSteps, on_device

# Log-probabilities are capped here: the odds of a certain answer are infinite.
_SURE = -1e-6


@dataclass(frozen=True)
class PairBatch:
    """Chosen and rejected answers, alternating; ``lengths`` are their numbers of tokens."""

    row: PackedBatch | dict[str, torch.Tensor]
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(on_device(self.row, device), self.lengths)


class OrpoTrainer(PlannedSteps, SFTTrainer):
    """Trains on the pairs of ``course``. ``beta`` is the weight of the odds ratio in the loss.

    ``packed``: the model takes packed rows (``model/attention.py``), else padded batches.
    """

    def __init__(self, *, course: Course, packed: bool, share_prefix: bool, beta: float, **trl: Any) -> None:
        self.course = course
        self._packed = packed
        self._share_prefix = share_prefix
        self._beta = beta
        collate: Any = self.cut
        super().__init__(data_collator=collate, **trl)
        self.remove_callback(PrinterCallback)

    def lay_out(self, items: Sequence[EncodedPair]) -> PairBatch:
        sides = [side for pair in items for side in pair.sides()]
        lengths = tuple(sum(side.mask) for side in sides)
        if self._packed:
            return PairBatch(pack(sides, share_prefix=self._share_prefix), lengths)
        return PairBatch(pad(sides, self.processing_class.pad_token_id), lengths)  # pyright: ignore

    def weight_of(self, items: Sequence[EncodedPair]) -> int:
        return len(items)

    def loss_of(self, model: Any, piece: PairBatch, weight: float) -> torch.Tensor:
        answers = torch.stack([-part.mean() for part in _losses(model, piece.row).split(piece.lengths)])
        chosen, rejected = answers[0::2], answers[1::2]
        losses, log_odds = odds_ratio_loss(chosen, rejected, self._beta)
        self._note("rewards/accuracies", (log_odds > 0).float())
        self._note("rewards/margins", self._beta * log_odds)
        self._note("nll", -chosen)
        return losses.sum() / weight

    def _note(self, name: str, values: torch.Tensor) -> None:
        mean = self.accelerator.gather_for_metrics(values.detach().mean()).mean()
        self._metrics["train"][name].append(mean.item())


def _losses(model: Any, row: PackedBatch | dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy [targets] of every learnt token, example by example."""
    if isinstance(row, PackedBatch):
        logits = model(
            input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False,
            logits_to_keep=row.predicting, packed=row.layout,
        ).logits[0]  # fmt: skip
        return TokenCrossEntropy.apply(logits, row.targets)
    logits = model(
        input_ids=row["input_ids"], attention_mask=row["attention_mask"], use_cache=False
    ).logits[:, :-1]  # fmt: skip
    targets = row["labels"][:, 1:]
    learnt = targets != -100
    return TokenCrossEntropy.apply(logits[learnt], targets[learnt])


def odds_ratio_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, log odds ratio) [pairs] of the answers' mean log-probabilities per token [pairs] (equations 2 to
    7): ``-chosen - beta log sigmoid(log odds(chosen) - log odds(rejected))``."""
    log_odds = _log_odds(chosen) - _log_odds(rejected)
    return -chosen - beta * F.logsigmoid(log_odds), log_odds


def _log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    below_one = log_probability.clamp(max=_SURE)
    return below_one - torch.log(-torch.expm1(below_one))
