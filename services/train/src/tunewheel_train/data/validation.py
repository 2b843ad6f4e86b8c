"""A part of the training examples that is watched instead of trained on, and when to stop because of it."""

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
    """(to train on, to validate on). Whole groups move, chosen by hash, until there are ``most`` or no more
    groups in ``fraction``: an example that is added moves no other, unless there are ``most``."""
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
