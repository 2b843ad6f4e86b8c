"""The tokens of finished requests that are kept in the cache, for later requests with the same beginning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewheel_generation.lora import LoraWeights


class PrefixCache:
    """Records which tokens each kept row holds, and for which adapter."""

    def __init__(self, rows: Iterable[int]) -> None:
        self._held: dict[int, tuple[LoraWeights | None, list[int]]] = {row: (None, []) for row in rows}

    def __iter__(self) -> Iterator[tuple[LoraWeights | None, list[int], int]]:
        for row, (weights, tokens) in self._held.items():
            yield weights, tokens, row

    def touch(self, row: int) -> None:
        """Note that ``row`` was used. The least recently used row is replaced first."""
        if row in self._held:
            self._held[row] = self._held.pop(row)

    def replace(self, weights: LoraWeights | None, tokens: list[int]) -> tuple[int, int]:
        """Assign a kept row to ``tokens``; return the row and how many of the tokens it already holds.

        A row that already holds half of the tokens is taken, so that one busy system prompt does not replace
        all others. Otherwise the least recently used row is taken.
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
    """Return the length of the common prefix of two lists."""
    same, most = 0, min(len(one), len(other))
    if one[:most] == other[:most]:  # Comparing slices is much faster than comparing token by token.
        return most
    while same + 1 < most:
        middle = (same + most) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle
    return same
