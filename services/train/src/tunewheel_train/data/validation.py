"""A part of the training examples that is watched instead of trained on, and when to stop because of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunewheel_train.data.datasets import Encoded

FEWEST = 20
"""Fewer validation examples than this say too little; then all are trained on."""


def carve(examples: Sequence[Encoded], *, fraction: float, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """(to train on, to validate on). Whole groups move, chosen by hash: an example that is added later moves
    no other."""
    bound = round(fraction * 2**64)
    chosen = [example for example in examples if _draw(f"{seed}/{example.group}") < bound]
    if len(chosen) < FEWEST or len(chosen) == len(examples):
        return list(examples), []
    ids = {example.example_id for example in chosen}
    return [example for example in examples if example.example_id not in ids], chosen


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(slots=True)
class Patience:
    """Which validation was best, and whether later ones were bad often enough to stop.

    ``patience`` 0 never stops. Kept in checkpoints, so that a resumed run decides alike.
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
        """Go on from ``state()`` of an earlier process."""
        if state.get("best_step") is not None:
            self.best_loss, self.best_step = float(state["best_loss"]), int(state["best_step"])
            self.bad = int(state["bad"])
