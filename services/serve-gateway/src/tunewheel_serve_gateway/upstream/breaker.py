"""A circuit breaker: decides when an engine gets no more requests, and when it is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Opens after ``failures`` in a row.

    closed     every request goes through
    open       no request goes through for ``seconds``; then one trial request at a time does, and its outcome
               closes the breaker or keeps it open
    half-open  a health check succeeded while the breaker was open: all requests go through, and the next
               outcome closes or opens it
    """

    def __init__(
        self, *, failures: int = 5, seconds: float = 5.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._now = now
        self._failed = 0
        self._open_until: float | None = None
        self._trial = False

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def allows(self) -> bool:
        """Return whether a request may be sent now."""
        return self._open_until is None or (not self._trial and self._now() >= self._open_until)

    def begin(self) -> None:
        """Note that a request is sent. While the breaker is open the request is its trial."""
        self._trial = self.is_open

    def give_up(self) -> None:
        """Note that a request was abandoned: its outcome stays unknown."""
        self._trial = False

    def succeed(self) -> bool:
        """Close. Return whether the breaker was open."""
        was_open, self._failed = self.is_open, 0
        self._open_until, self._trial = None, False
        return was_open

    def fail(self) -> bool:
        """Note a failure. Return whether the breaker opened because of it."""
        was_open, self._failed, self._trial = self.is_open, self._failed + 1, False
        if self._failed >= self._most:
            self._open_until = self._now() + self._seconds
        return self.is_open and not was_open

    def pass_check(self) -> bool:
        """Note a health check that succeeded: half-open. Return whether the breaker was open. A closed one
        keeps its count: an engine may list its models and fail every answer."""
        was_open = self.is_open
        if was_open:
            self._open_until, self._trial, self._failed = None, False, self._most - 1
        return was_open
