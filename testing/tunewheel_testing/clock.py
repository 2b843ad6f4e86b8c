"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Seconds that pass where a test sets ``now``, or where something sleeps. Call it for the time."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.waits: list[float] = []
        """The waits that were asked for."""

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
