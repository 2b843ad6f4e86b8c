"""Limits the rate at which the doors of this process take events of one project.

Every event that was taken uses up its part of a minute. A request is refused while its project has used up
a minute or more that is still to come (the generic cell rate algorithm, ITU-T I.371, annex A). A request
that was admitted is carried out to its end: what it took beyond the limit delays the project's next request.
So a body of any length gets through, and over time the rate holds.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

from tunewheel_contracts.errors import TransientError

MINUTE = 60.0


class OverQuota(TransientError):
    """A project sends too much; HTTP 429. After ``retry_after`` seconds it is admitted again."""

    def __init__(self, project: str, limit: int, retry_after: int) -> None:
        super().__init__(
            f"project {project!r} sends more than {limit} events a minute "
            f"(TUNEWHEEL_PROJECT_EVENTS_PER_MINUTE of ingest); send again in {retry_after} s, or ask for a "
            "higher limit"
        )
        self.retry_after = retry_after


class Quota:
    """``per_minute``: events of one project; None: no limit."""

    def __init__(self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = per_minute, clock
        self._used_upto: dict[str, float] = {}
        """By project: the moment up to which its events use up the time."""

    def admit(self, project: str) -> None:
        """Raise OverQuota if ``project`` must wait."""
        wait = self._used_upto.get(project, 0.0) - self._clock() - MINUTE
        if self._limit is not None and wait >= 0:
            # Sums of times are rounded: 1634 s later a wait of 1633.9999999999998 s may not be over.
            raise OverQuota(project, self._limit, math.floor(wait + 1e-6) + 1)

    def charge(self, projects: Iterable[str]) -> None:
        """Count an event that was taken for each of ``projects``."""
        if self._limit is not None:
            now = self._clock()
            for project, events in Counter(projects).items():
                began = max(now, self._used_upto.get(project, 0.0))
                self._used_upto[project] = began + events * MINUTE / self._limit
