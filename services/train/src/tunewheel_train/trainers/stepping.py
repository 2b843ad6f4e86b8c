"""The changes that all our trainers make to transformers' Trainer, independent of the loss.

An item of the data loader is a whole optimizer step, as a list of micro-batches. Checkpoints are our own.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback

from tunewheel_train.data.schedule import micro_batches
from tunewheel_train.trainers import checkpoints
from tunewheel_train.trainers.checkpoint_writer import CheckpointWriter
from tunewheel_train.trainers.course import Course


@dataclass(frozen=True)
class Step:
    """One process's part of one optimizer step: micro-batches, each with the divisor of its loss."""

    pieces: tuple[tuple[Any, float], ...]
    tokens: int
    """Of all processes."""
    rounds: int
    """The number of micro-batches in each part of the step; the last part may have fewer."""

    @property
    def parts(self) -> list[tuple[tuple[Any, float], ...]]:
        return [self.pieces[at : at + self.rounds] for at in range(0, len(self.pieces), self.rounds)]


class OwnCheckpoints:
    """A mix-in that comes before TRL's class among the bases: the course, and checkpoints of our own."""

    args: Any
    state: Any
    accelerator: Any
    writer: CheckpointWriter
    """Set before the training begins."""

    def __init__(self, *, course: Course, **trl: Any) -> None:
        self.course = course
        super().__init__(**trl)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def figures(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """Return what a step tells beside its loss, from the entries that TRL logs."""
        return {}

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.writer.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None, model: Any = None) -> None:
        if resume_from_checkpoint is not None:
            checkpoints.load_weights(self, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(self, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint))


class PlannedSteps(OwnCheckpoints):
    """A mix-in whose steps are those of the course.

    If n processes train together, each takes every n-th item of a step. DDP averages their gradients, so each
    process multiplies its loss by n. The result is the same as with one process: within rounding, or to the
    bit if ``course.parts`` is n. A single process then computes the same parts one after the other.
    """

    def __init__(self, *, course: Course, **trl: Any) -> None:
        super().__init__(course=course, data_collator=self.cut, **trl)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the items are already encoded, with masks

    def arrange(self, step: Sequence[Any]) -> Sequence[Any]:
        """Return the items of one step, combined with other items of the step if the method needs that."""
        return step

    def lay_out(self, items: Sequence[Any]) -> Any:
        """Return one micro-batch of ``items``."""
        raise NotImplementedError

    def weight_of(self, items: Sequence[Any]) -> int:
        """Return the divisor by which the losses of a step's items are averaged."""
        raise NotImplementedError

    def loss_of(self, model: Any, piece: Any, weight: float) -> torch.Tensor:
        """Return the micro-batch's share of the step's loss. ``weight`` is that of the whole step."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.course.items,  # type: ignore[bad-argument-type]
            batch_sampler=[list(step) for step in self.course.steps],
            collate_fn=self.cut,
        )
        return loader

    def cut(self, step: Sequence[Any]) -> Step:
        """Return this process's part of one step."""
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        items, parts = self.arrange(step), max(count, self.course.parts)
        weight, size = self.weight_of(items) / count, self.course.micro_batch_size
        rows = [row for part in range(index, parts, count) for row in micro_batches(items[part::parts], size)]
        pieces = [(self.lay_out(row), weight) for row in rows]
        # Processes communicate at every micro-batch, so each needs as many as the first one. Fill up with
        # micro-batches whose loss is divided by infinity.
        rounds = math.ceil(math.ceil(len(items) / parts) / size)
        pieces += [(self.lay_out(items[:1]), math.inf)] * (rounds - len(pieces))
        return Step(tuple(pieces), sum(len(item) for item in step), rounds)

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over one step's micro-batches; returns the step's loss."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        before: dict[Any, torch.Tensor] = {}
        for number, part in enumerate(inputs.parts):
            self._seed(number)
            total += self._learn(model, part, last=number == len(inputs.parts) - 1)
            if number < len(inputs.parts) - 1:
                before = {p: p.grad for p in model.parameters() if p.grad is not None}
                model.zero_grad()
        for parameter, gradient in before.items():
            parameter.grad = gradient.add_(parameter.grad)
        self.course.counted(inputs.tokens)
        return total

    def _seed(self, number: int) -> None:
        """Give each part of a step random numbers of its own, whichever process computes it."""
        if self.course.parts > 1:
            step = self.course.first_step + self.state.global_step
            part = number + self.accelerator.process_index
            torch.manual_seed(random.Random(f"{self.args.seed}/{step}/{part}").getrandbits(63))

    def _learn(self, model: Any, part: Sequence[tuple[Any, float]], *, last: bool) -> torch.Tensor:
        """Forward and backward over one part's micro-batches; returns the part's loss."""
        total = torch.zeros((), device=self.args.device)
        for at, (piece, weight) in enumerate(part, 1):
            with self._exchanging(model, last and at == len(part)):
                with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                    loss = self.loss_of(model, on_device(piece, self.args.device), weight)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _exchanging(self, model: Any, last: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which gradients are exchanged only for the last micro-batch of a step."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        return [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)], None


def on_device(piece: Any, device: torch.device) -> Any:
    """Return a micro-batch on ``device``. It is a mapping of tensors, or an object with ``to``."""
    if isinstance(piece, dict):
        return {name: tensor.to(device) for name, tensor in piece.items()}
    return piece.to(device)
