"""Tumbling windows over one stream of a project: its completions, or the ratings of them.

Window ``n`` is the ``n``-th run of ``size`` items in the order they arrived. Partitions have no order
between them, so which items those are is decided once, when the window is recorded: by the offsets up to
which each partition's items lie in windows that are closed (the frontier). Whoever rebuilds the stream from
the log drops what lies before the frontier; the order of the rest was never decided and does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

CALM_WINDOWS = 3
"""Windows in a row without drift after which a shift is over, at least: one at the edge of what a window can
show is seen in one window and not in the next."""


@dataclass(frozen=True, slots=True)
class Item:
    """One completion, or one rating of a completion, as far as drift is concerned."""

    completion_id: str
    model_id: str
    partition: int
    offset: int
    at: datetime
    bad: bool
    """The output is invalid, or the thumb is down."""
    event_id: str
    correlation_id: str | None = None
    customer: str | None = None
    """Who asked, where the client said so: the name under which an erasure finds the item."""
    text: str | None = ""
    """What the user asked. None: the project's texts are not logged."""
    shown: str = ""
    """Beginning of what was answered, or said of it."""


@dataclass(frozen=True, slots=True)
class Window:
    """A full window. ``frontier``: partition → offset before which all items are in this window or an
    earlier one."""

    number: int
    items: tuple[Item, ...]
    frontier: Mapping[int, int]

    @property
    def bad(self) -> int:
        return sum(item.bad for item in self.items)


@dataclass
class Stream:
    """What has arrived and is in no closed window yet. ``closed`` counts the closed windows."""

    project: str
    dataset_id: str
    closed: int = 0
    frontier: dict[int, int] = field(default_factory=dict[int, int])
    silence: Silence = field(default_factory=lambda: Silence())
    baseline: tuple[int, int] | None = None
    """(bad, total) that windows are compared with, once known."""
    pending: list[Item] = field(default_factory=list[Item])
    _ids: set[str] = field(default_factory=set[str])

    def absorb(self, item: Item) -> bool:
        """Take ``item``; False where it is in a closed window, or a second one about its completion."""
        if item.offset < self.frontier.get(item.partition, 0) or item.completion_id in self._ids:
            return False
        self.pending.append(item)
        self._ids.add(item.completion_id)
        return True

    def full(self, size: int) -> Window | None:
        """Return the next window once ``size`` items wait; it stays open until ``close``."""
        if len(self.pending) < size:
            return None
        items = tuple(self.pending[:size])
        frontier = dict(self.frontier)
        for item in items:
            frontier[item.partition] = max(frontier.get(item.partition, 0), item.offset + 1)
        return Window(self.closed + 1, items, frontier)

    def close(self, window: Window, *, silence: Silence, baseline: tuple[int, int]) -> None:
        """Move on past ``window``, as recorded."""
        self.silence, self.baseline = silence, baseline
        self.closed = window.number
        self.frontier = dict(window.frontier)
        self.pending = self.pending[len(window.items) :]
        self._ids = {item.completion_id for item in self.pending}


@dataclass(frozen=True, slots=True)
class Silence:
    """Which detectors say nothing, because their last alarm is still open: one shift is one alarm.

    ``left`` holds, by detector, how many completions in a row must still pass without drift until the shift
    is over and the detector may speak again.
    """

    left: Mapping[str, int] = field(default_factory=dict[str, int])

    def binds(self, detector: str) -> bool:
        return self.left.get(detector, 0) > 0

    def after(self, detector: str, completions: int, *, drifted: bool, cooldown: int) -> Silence:
        """Return the silence once ``detector`` has judged a window of ``completions``.

        A window with drift opens the alarm, or shows that its shift goes on; ``cooldown`` and at least
        ``CALM_WINDOWS`` windows without drift in a row end it.
        """
        whole = max(cooldown, CALM_WINDOWS * completions)
        calm = self.left.get(detector, 0) - completions
        return Silence({**self.left, detector: whole if drifted else max(0, calm)})
