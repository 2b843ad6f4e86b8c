"""Keys and values of the running batch, in one preallocated block per layer.

Rows 0 … n-1 are the running batch, without gaps: each has its own length, and a new token is written at its
row's end. The next row is where a joining request is read in before it moves to row n, and the rows after
that keep what requests left behind, for later ones that begin alike.
"""

from __future__ import annotations

import math
import mmap

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class KvCache(Cache):
    """A transformers cache for ``rows`` requests of up to ``tokens`` tokens each, and ``kept`` former ones.

    On a CPU, what was never written takes no memory.
    """

    def __init__(self, *, layers: int, rows: int, kept: int, tokens: int) -> None:
        self.window = Window()
        self.rows = rows
        self.tokens = tokens
        self.row_layers = [RowLayer(self.window, rows + 1 + kept, tokens) for _ in range(layers)]
        super().__init__(layers=list(self.row_layers))

    @property
    def staging(self) -> int:
        """Index of the row that joining requests are read into."""
        return self.rows

    def aim_at_row(self, row: int, start: int, stop: int) -> None:
        """Let the next forward pass write tokens ``start`` … ``stop`` - 1 of one row."""
        self.window.row, self.window.start, self.window.width = row, start, stop

    def aim_at_batch(self, lengths: list[int], device: torch.device) -> None:
        """Let the next forward pass add one token to each of the first ``len(lengths)`` rows."""
        window = self.window
        window.row, window.count, window.width = None, len(lengths), max(lengths) + 1
        offsets = [row * self.tokens + length for row, length in enumerate(lengths)]
        window.places = torch.tensor(offsets, device=device)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one row over another."""
        if source != target:
            for layer in self.row_layers:
                layer.move(source, target, length)


class Window:
    """Where the next forward pass writes: one row (``row``), or one token of each of ``count`` rows."""

    row: int | None = None
    start: int = 0
    width: int = 0
    count: int = 0
    places: torch.Tensor


class RowLayer(CacheLayerMixin):
    """One layer's block, [rows, tokens, heads, width of a head]: a row lies in one piece."""

    is_sliding = False

    def __init__(self, window: Window, rows: int, tokens: int) -> None:
        super().__init__()
        self._window = window
        self._rows = rows
        self._tokens = tokens

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one row over another."""
        if self.is_initialized:
            self._keys[target, :length] = self._keys[source, :length]
            self._values[target, :length] = self._values[source, :length]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._keys = _zeros_on_demand(key_states, self._rows, self._tokens)
        self.values = self._values = _zeros_on_demand(value_states, self._rows, self._tokens)
        self._flat_keys = self._keys.flatten(0, 1)
        self._flat_values = self._values.flatten(0, 1)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [rows, heads, tokens, width] where the window is; returns all that those rows hold."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window, width = self._window, self._window.width
        if window.row is not None:
            rows = slice(window.row, window.row + 1)
            self._keys[window.row, window.start : width] = key_states[0].transpose(0, 1)
            self._values[window.row, window.start : width] = value_states[0].transpose(0, 1)
        else:
            rows = slice(0, window.count)
            self._flat_keys.index_copy_(0, window.places, key_states[:, :, 0])
            self._flat_values.index_copy_(0, window.places, value_states[:, :, 0])
        return self._keys[rows, :width].transpose(1, 2), self._values[rows, :width].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window.width, 0

    def get_seq_length(self) -> int:
        return self._window.start if self._window.row is not None else self._window.width - 1

    def get_max_length(self) -> int:
        return self._tokens


def _zeros_on_demand(states: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    """Zeros [rows, tokens, heads, width] for ``states`` [_, heads, _, width]."""
    shape = (rows, tokens, states.shape[1], states.shape[3])
    if states.device.type != "cpu":
        return states.new_zeros(shape)
    # torch.zeros writes its zeros, 1.6 GB for 16 rows of SmolLM2; fresh pages are zero unwritten.
    pages = mmap.mmap(-1, math.prod(shape) * states.element_size())
    return torch.frombuffer(pages, dtype=states.dtype).view(shape)
