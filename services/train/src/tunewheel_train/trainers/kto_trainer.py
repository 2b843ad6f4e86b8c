"""TRL's KTOTrainer on planned steps: each answer is desirable or not by itself (arXiv:2402.01306)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer
from tunewheel_contracts.formats.recipe import PreferenceSpec

from tunewheel_train.data.preferences import EncodedPair, class_weights
from tunewheel_train.trainers import trl_config
from tunewheel_train.trainers.frame import Frame
from tunewheel_train.trainers.stepping import PlannedSteps, Step, on_device


def make_trainer(
    frame: Frame, preference: PreferenceSpec, arguments: dict[str, Any], **trl: Any
) -> KtoTrainer:
    desirable, undesirable = class_weights(trl["course"].items, preference)
    config = KTOConfig(
        **trl_config.pairs_arguments(arguments, preference)
        # An item is a whole step, but TRL needs more than one item to estimate the KL divergence.
        | {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 2},
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )
    return KtoTrainer(args=config, **trl)


@dataclass(frozen=True, slots=True)
class Mismatched:
    """A pair, and an ``other`` pair whose answers do not belong to its prompt. How much likelier training
    made these mismatched answers estimates the KL divergence from the reference."""

    pair: EncodedPair
    other: EncodedPair

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the rows for TRL's collator for unpaired preferences."""
        prompt, pair, other = list(self.pair.prompt_ids), self.pair, self.other
        sides = (
            (pair.chosen_ids, other.chosen_ids or other.rejected_ids, True),
            (pair.rejected_ids, other.rejected_ids or other.chosen_ids, False),
        )
        return [
            {
                "prompt_ids": prompt,
                "completion_ids": list(answer),
                "KL_completion_ids": list(foreign),
                "label": desirable,
            }
            for answer, foreign, desirable in sides
            if answer
        ]


class KtoTrainer(PlannedSteps, KTOTrainer):
    """Trains the adapter of a PEFT model on the answers of every pair of ``course``; a pair may have only
    one. The reference is the adapter before the first step, which TRL keeps as a second, frozen adapter
    ``ref``.

    TRL estimates the KL divergence on each micro-batch. Here it is estimated once per step, on the whole
    step, so the result does not depend on the size of micro-batches.
    """

    def __init__(self, **trl: Any) -> None:
        self._moved = torch.zeros(())
        self._lay_out = DataCollatorForUnpairedPreference(pad_token_id=trl["processing_class"].pad_token_id)
        super().__init__(**trl)
        self.precompute_ref_logps = True  # once per step

    def arrange(self, step: Sequence[EncodedPair]) -> Sequence[Mismatched]:
        if len(step) == 1:  # the rest of an epoch
            other = next(pair for pair in self.course.items if pair is not step[0])
            return [Mismatched(step[0], other)]
        return [Mismatched(pair, other) for pair, other in zip(step, (step[-1], *step), strict=False)]

    def lay_out(self, items: Sequence[Mismatched]) -> dict[str, torch.Tensor]:
        return self._lay_out([row for item in items for row in item.as_rows()])

    def weight_of(self, items: Sequence[Mismatched]) -> int:
        return sum(len(item.pair.sides()) for item in items)

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        return super().training_step(model, self._measured(model, inputs), num_items_in_batch)

    def loss_of(self, model: Any, piece: dict[str, torch.Tensor], weight: float) -> torch.Tensor:
        loss: Any = self.compute_loss(model, piece)
        return loss * (len(piece["label"]) / weight)

    def _measured(self, model: Any, step: Step) -> Step:
        """Return ``step`` with the reference's log-probabilities of its answers. Set the KL estimate: the
        mean log-ratio of the step's mismatched answers over all processes."""
        total = torch.zeros((), device=self.args.device)
        pieces: list[tuple[Any, float]] = []
        for part in step.parts:
            moved = torch.zeros((), device=self.args.device)
            for piece, weight in part:
                batch = on_device(piece, self.args.device)
                with self.compute_loss_context_manager():
                    now: Any = super()._compute_kl_logps(model, batch)
                    own, foreign = self.compute_ref_log_probs(model, batch)
                moved += (now - foreign).sum().float() / weight
                pieces.append((batch | {"ref_logps": own, "ref_KL_logps": foreign}, weight))
            total += moved
        self._moved = self.accelerator.gather(total).mean()
        return replace(step, pieces=tuple(pieces))

    def _compute_kl_logps(self, model: Any, batch: Any) -> torch.Tensor:
        """Return log-probabilities for TRL, which takes the mean of their difference from the reference's."""
        return batch["ref_KL_logps"] + self._moved
