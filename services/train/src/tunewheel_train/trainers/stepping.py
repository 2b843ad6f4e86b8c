"""What our trainers change in transformers' Trainer, whichever loss TRL gives them.

One item of the data loader is one optimizer step, a list of micro-batches; checkpoints are our own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from tunewheel_train.data.schedule import micro_batches
from tunewheel_train.trainers import checkpoints
from tunewheel_train.trainers.course import Course


@dataclass(frozen=True)
class Step:
    """What one process does of one optimizer step: micro-batches, each with what its loss is divided by."""

    pieces: tuple[tuple[Any, float], ...]
    tokens: int
    """Of all processes."""


class PlannedSteps:
    """Comes before TRL's class among the bases; set ``course`` before that class's ``__init__``.

    Where several processes train together each takes every n-th item of a step. DDP averages their gradients,
    so each scales its loss by their number: together they do exactly what one would.
    """

    course: Course
    args: Any
    accelerator: Any

    def arrange(self, step: Sequence[Any]) -> Sequence[Any]:
        """The items of one step, given what each has to know of the others."""
        return step

    def lay_out(self, items: Sequence[Any]) -> Any:
        """One micro-batch of ``items``."""
        raise NotImplementedError

    def weight_of(self, items: Sequence[Any]) -> int:
        """What the losses of a step's items are averaged by."""
        raise NotImplementedError

    def loss_of(self, model: Any, piece: Any, weight: float) -> torch.Tensor:
        """The micro-batch's share of the step's loss, ``weight`` being the step's."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.course.items,  # pyright: ignore[reportArgumentType]
            batch_sampler=[list(step) for step in self.course.steps],
            collate_fn=self.cut,
        )
        return loader

    def cut(self, step: Sequence[Any]) -> Step:
        """This process's part of one step."""
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        items = self.arrange(step)
        mine, weight = items[index::count], self.weight_of(items) / count
        rows = micro_batches(range(len(mine)), self.course.micro_batch_size)
        pieces = [(self.lay_out([mine[at] for at in row]), weight) for row in rows]
        # Processes exchange something at every micro-batch: each has as many as the first, be they nothing.
        rounds = math.ceil(math.ceil(len(items) / count) / self.course.micro_batch_size)
        pieces += [(self.lay_out(items[:1]), math.inf)] * (rounds - len(pieces))
        return Step(tuple(pieces), sum(len(item) for item in step))

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over one step's micro-batches; returns the step's loss."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for at, (piece, weight) in enumerate(inputs.pieces, 1):
            with self._exchanging(model, at == len(inputs.pieces)):
                with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                    loss = self.loss_of(model, on_device(piece, self.args.device), weight)
                self.accelerator.backward(loss)
            total += loss.detach()
        self.course.counted(inputs.tokens)
        return total

    def _exchanging(self, model: Any, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged once a step, after its last micro-batch."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        return [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)], None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints.save(self, Path(str(self.args.output_dir)))
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None, model: Any = None) -> None:
        if resume_from_checkpoint is not None:
            checkpoints.load_weights(self, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(self, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint))


def on_device(piece: Any, device: torch.device) -> Any:
    """A micro-batch there: a mapping of tensors, or something with ``to``."""
    if isinstance(piece, dict):
        return {name: tensor.to(device) for name, tensor in piece.items()}
    return piece.to(device)
