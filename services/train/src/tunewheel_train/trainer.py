"""TRL's SFTTrainer with the loss on what the assistant wrote, and nothing computed that the loss ignores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl.trainer.sft_trainer import SFTTrainer

from tunewheel_train import checkpoints
from tunewheel_train.datasets import Encoded
from tunewheel_train.loss import SummedCrossEntropy
from tunewheel_train.packing import PackedBatch, pack, pad
from tunewheel_train.schedule import micro_batches

Micro = PackedBatch | dict[str, torch.Tensor]


class AssistantTrainer(SFTTrainer):
    """One item of its data loader is one optimizer step: a list of micro-batches.

    ``steps`` are the plan's indices into ``examples``. ``packed``: the model takes packed rows
    (``attention.py``); otherwise padded batches go through TRL's own loss.
    """

    def __init__(
        self,
        *,
        examples: Sequence[Encoded],
        steps: Sequence[Sequence[int]],
        micro_batch_size: int,
        packed: bool,
        share_prefix: bool,
        **trl: Any,
    ) -> None:
        self._examples = examples
        self._steps = [list(step) for step in steps]
        self._micro_batch_size = micro_batch_size
        self._packed = packed
        self._share_prefix = share_prefix
        self.tokens_seen = 0
        self.resumed_from: tuple[int, ...] = ()
        self.count_seconds_from(0.0)
        collate: Any = self._collate
        super().__init__(data_collator=collate, **trl)
        self.remove_callback(PrinterCallback)

    def count_seconds_from(self, before: float) -> None:
        """Start the clock at ``before``, the seconds that earlier attempts at this run trained."""
        self._clock = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Seconds of training, those of earlier attempts up to their checkpoint included."""
        return time.monotonic() - self._clock

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            self._examples,  # pyright: ignore[reportArgumentType]
            batch_sampler=self._steps,
            collate_fn=self._collate,
        )
        return loader

    def _collate(self, step: Sequence[Encoded]) -> list[Micro]:
        pieces = micro_batches(range(len(step)), self._micro_batch_size)
        return [self._lay_out([step[index] for index in piece]) for piece in pieces]

    def _lay_out(self, examples: Sequence[Encoded]) -> Micro:
        if self._packed:
            return pack(examples, share_prefix=self._share_prefix)
        return pad(examples, self.processing_class.pad_token_id)  # pyright: ignore

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over one step's micro-batches; returns the mean loss per learnt token."""
        model.train()
        pieces = [_on(piece, self.args.device) for piece in inputs]
        learnt = sum(_targets(piece) for piece in pieces)
        total = torch.zeros((), device=self.args.device)
        for piece in pieces:
            with self.compute_loss_context_manager():
                loss = self._loss(model, piece, learnt)
            self.accelerator.backward(loss)
            total += loss.detach()
            self.tokens_seen += _tokens(piece)
        return total

    def _loss(self, model: Any, piece: Micro, learnt: int) -> torch.Tensor:
        """The micro-batch's share of the step's loss."""
        if isinstance(piece, dict):
            return self.compute_loss(model, dict(piece), num_items_in_batch=torch.tensor(learnt))
        logits = model(
            input_ids=piece.input_ids, position_ids=piece.position_ids, use_cache=False,
            logits_to_keep=piece.predicting, packed=piece.layout,
        ).logits[0]  # fmt: skip
        return SummedCrossEntropy.apply(logits, piece.targets) / learnt

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        return [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)], None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints.save(self, Path(str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None, model: Any = None) -> None:
        if resume_from_checkpoint is not None:
            checkpoints.load_weights(self, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(self, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint))


def _on(piece: Micro, device: torch.device) -> Micro:
    if isinstance(piece, dict):
        return {name: tensor.to(device) for name, tensor in piece.items()}
    return piece.to(device)


def _targets(piece: Micro) -> int:
    return int((piece["labels"] != -100).sum()) if isinstance(piece, dict) else len(piece.targets)


def _tokens(piece: Micro) -> int:
    return int(piece["attention_mask"].sum()) if isinstance(piece, dict) else piece.tokens
