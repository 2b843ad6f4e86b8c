"""The key-value cache of the running batch: one preallocated block per layer.

Each row of a block holds one request, from its first token on. A forward pass uses consecutive rows. It
writes new keys and values in place, and attention reads the block itself. Earlier keys and values are
therefore never copied.
"""

from __future__ import annotations

import math
import mmap

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class KvCache(Cache):
    """A transformers cache of ``rows`` rows of up to ``tokens`` tokens.

    On a CPU, parts that were never written take no memory.
    """

    def __init__(self, *, layers: int, rows: int, tokens: int) -> None:
        self.window = Window()
        self.tokens = tokens
        # One additional row, to which padding is written.
        self._scrap = rows * tokens
        self.row_layers = [RowLayer(self.window, rows + 1, tokens) for _ in range(layers)]
        super().__init__(layers=list(self.row_layers))

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks once every page was written; 0 before the first forward pass."""
        return sum(layer.nbytes for layer in self.row_layers)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values; 0 before the first forward pass."""
        return self.nbytes // (self._scrap + self.tokens)

    def aim(self, first: int, slots: torch.Tensor, *, width: int) -> None:
        """Set the window of the next forward pass: rows from ``first`` on, of which ``width`` tokens are
        read.

        ``slots`` [rows, columns]: the position in its row to which each column is written; -1: not written.
        """
        window = self.window
        window.first, window.count, window.width = first, slots.shape[0], width
        window.before = width - slots.shape[1]
        rows = torch.arange(first, first + window.count, device=slots.device)[:, None]
        window.places = (rows * self.tokens + slots).where(slots >= 0, self._scrap).flatten()

    def move(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy tokens ``start`` … ``stop`` - 1 of row ``source`` to row ``target``."""
        if source != target and start < stop:
            for layer in self.row_layers:
                layer.move(source, target, start, stop)


class Window:
    """The part of the cache for the next forward pass. It reads ``width`` tokens of ``count`` rows from
    ``first`` on. It writes to ``places``, which are positions counted over all rows of a block."""

    first: int = 0
    count: int = 0
    width: int = 0
    before: int = 0
    places: torch.Tensor


class RowLayer(CacheLayerMixin):
    """One layer's block, [rows, tokens, heads, head size], so that each row is contiguous."""

    is_sliding = False

    def __init__(self, window: Window, rows: int, tokens: int) -> None:
        super().__init__()
        self._window = window
        self._rows = rows
        self._tokens = tokens

    def move(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy tokens ``start`` … ``stop`` - 1 of row ``source`` to row ``target``."""
        if self.is_initialized:
            self._keys[target, start:stop] = self._keys[source, start:stop]
            self._values[target, start:stop] = self._values[source, start:stop]

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes if self.is_initialized else 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._keys = _zeros_on_demand(key_states, self._rows, self._tokens)
        self.values = self._values = _zeros_on_demand(value_states, self._rows, self._tokens)
        self._flat_keys = self._keys.flatten(0, 1)
        self._flat_values = self._values.flatten(0, 1)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states of shape [rows, heads, columns, head size] to the window; return all states of its
        rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._window
        self._flat_keys.index_copy_(0, window.places, key_states.transpose(1, 2).flatten(0, 1))
        self._flat_values.index_copy_(0, window.places, value_states.transpose(1, 2).flatten(0, 1))
        rows = slice(window.first, window.first + window.count)
        return (
            self._keys[rows, : window.width].transpose(1, 2),
            self._values[rows, : window.width].transpose(1, 2),
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window.width, 0

    def get_seq_length(self) -> int:
        return self._window.before

    def get_max_length(self) -> int:
        return self._tokens


def _zeros_on_demand(states: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    """Return zeros [rows, tokens, heads, head size] for ``states`` [_, heads, _, head size]."""
    shape = (rows, tokens, states.shape[1], states.shape[3])
    if states.device.type != "cpu":
        return states.new_zeros(shape)
    # torch.zeros writes every zero: 1.6 GB for 16 rows of SmolLM2. Fresh pages are zero unwritten.
    pages = mmap.mmap(-1, math.prod(shape) * states.element_size())
    return torch.frombuffer(pages, dtype=states.dtype).view(shape)
