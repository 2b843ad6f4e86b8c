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
from tunewheel_contracts.formats.recipe import PreferenceSpec

from tunewheel_train.data.packing import PackedBatch
from tunewheel_train.trainers import trl_config
from tunewheel_train.trainers.frame import Frame
from tunewheel_train.trainers.loss import TokenCrossEntropy, packed_losses
from tunewheel_train.trainers.sft_trainer import SftTrainer
from tunewheel_train.trainers.stepping import on_device

# Log-probabilities are capped here: the odds of a certain answer are infinite.
_SURE = -1e-6


def make_trainer(
    frame: Frame, preference: PreferenceSpec, arguments: dict[str, Any], **trl: Any
) -> OrpoTrainer:
    sides = [side for pair in trl["course"].items for side in pair.sides()]
    args = trl_config.examples_config(arguments)
    return OrpoTrainer(beta=preference.beta, args=args, **frame.rows_for(sides), **trl)


@dataclass(frozen=True)
class PairBatch:
    """Chosen and rejected answers, alternating; ``lengths`` are their numbers of tokens."""

    row: PackedBatch | dict[str, torch.Tensor]
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(on_device(self.row, device), self.lengths)


class OrpoTrainer(SftTrainer):
    """Trains on the pairs of ``course``. ``beta`` is the weight of the odds ratio in the loss."""

    def __init__(self, *, beta: float, **trl: Any) -> None:
        self._beta = beta
        super().__init__(**trl)

    def lay_out(self, items: Sequence[Any]) -> Any:
        sides = [side for pair in items for side in pair.sides()]
        return PairBatch(super().lay_out(sides), tuple(sum(side.mask) for side in sides))

    def weight_of(self, items: Sequence[Any]) -> int:
        return len(items)

    def loss_of(self, model: Any, piece: Any, weight: float) -> torch.Tensor:
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
        return packed_losses(model, row)
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
