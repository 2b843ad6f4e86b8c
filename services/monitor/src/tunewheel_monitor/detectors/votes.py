"""How much one user may weigh: requests of one user are not independent, and a user may mean harm."""

from __future__ import annotations

import zlib

from tunewheel_monitor.detectors.protocol import State

BUCKETS = 4_096
"""Users share a bucket by chance: two of a hundred once in fifty windows, which then weigh as one."""


def bucket(name: str) -> str:
    """Return a short, stable stand-in for ``name``."""
    return str(zlib.crc32(name.encode()) % BUCKETS)


def admitted(votes: State, user: str | None, most: int) -> bool:
    """Whether one more item of ``user`` counts: at most ``most`` do until ``votes`` is cleared. Items
    without a user all count: nobody can tell whose they are."""
    if user is None:
        return True
    name = bucket(user)
    cast = votes.get(name, 0)
    if cast >= most:
        return False
    votes[name] = cast + 1
    return True
