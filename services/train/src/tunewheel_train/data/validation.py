"""Splits validation examples off the training examples, and decides on early stopping."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunewheel_train.data.datasets import Encoded


def carve(
    examples: Sequence[Encoded], *, fraction: float, most: int, seed: int
) -> tuple[list[Encoded], list[Encoded]]:
    """Return (training examples, validation examples).

    Whole groups are chosen by hash, until ``most`` examples are reached or no group is left in ``fraction``.
    A new example does not move others, unless the limit ``most`` is reached.
    """
    bound = round(fraction * 2**64)
    drawn = [(_draw(f"{seed}/{example.group}"), example) for example in examples]
    chosen: list[Encoded] = []
    for place, members in itertools.groupby(sorted(drawn, key=_place), key=_place):
        if len(chosen) >= most or place >= bound:
            break
        chosen += [example for _, example in members]
    if len(chosen) == len(examples):
        return list(examples), []
    ids = {example.example_id for example in chosen}
    return [example for example in examples if example.example_id not in ids], chosen


def _place(drawn: tuple[int, Encoded]) -> int:
    return drawn[0]


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(slots=True)
class Patience:
    """Keeps the best validation, and stops after ``patience`` validations in a row without improvement.

    ``patience`` 0 never stops. The state is kept in checkpoints, so that a resumed run decides the same.
    """

    patience: int
    best_loss: float = float("inf")
    best_step: int | None = None
    bad: int = 0

    def saw(self, loss: float, step: int) -> None:
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.bad = loss, step, 0
        else:
            self.bad += 1

    @property
    def over(self) -> bool:
        return 0 < self.patience <= self.bad

    def state(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()`` of an earlier process."""
        if state.get("best_step") is not None:
            self.best_loss, self.best_step = float(state["best_loss"]), int(state["best_step"])
            self.bad = int(state["bad"])
