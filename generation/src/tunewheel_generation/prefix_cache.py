"""What former requests left in the cache, for later ones that begin alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewheel_generation.lora import LoraWeights


class PrefixCache:
    """Which tokens lie in the rows that are kept, and for which adapter."""

    def __init__(self, rows: Iterable[int]) -> None:
        self._held: dict[int, tuple[LoraWeights | None, list[int]]] = {row: (None, []) for row in rows}

    def __iter__(self) -> Iterator[tuple[LoraWeights | None, list[int], int]]:
        for row, (weights, tokens) in self._held.items():
            yield weights, tokens, row

    def touch(self, row: int) -> None:
        """Note that ``row`` was of use: the one that was not for longest is the first to go."""
        if row in self._held:
            self._held[row] = self._held.pop(row)

    def replace(self, weights: LoraWeights | None, tokens: list[int]) -> tuple[int, int]:
        """Return the row to write ``tokens`` to, which it holds from now on, and how many it held already.

        That is the row which shares half of them, so that a busy system prompt does not push out all
        others, or else the one that was of no use for longest.
        """
        shared = [(common(tokens, held), row) for of, held, row in self if of is weights]
        most, row = max(shared, default=(0, -1))
        if 2 * most < len(tokens) or most == 0:
            row = next(iter(self._held))
            of, held = self._held[row]
            most = common(tokens, held) if of is weights else 0
        self._held[row] = (weights, tokens)
        self.touch(row)
        return row, most


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning of two lists."""
    same, most = 0, min(len(one), len(other))
    if one[:most] == other[:most]:  # slices compare much faster than tokens one by one
        return most
    while same + 1 < most:
        middle = (same + most) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle
    return same
