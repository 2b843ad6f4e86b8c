"""Limits how many items of one user count: they are not independent, and a user may be malicious."""

from __future__ import annotations

import zlib

from tunewheel_monitor.detectors.protocol import State

BUCKETS = 4_096
"""The number of buckets. Two of a hundred users share one by chance once in fifty windows, and then count as
one."""
WORDS, BITS = 128, 64
"""The size of the bit set of counted users. By collisions 6 % of 1,000 users are left out, and half of
10,000."""


def bucket(name: str) -> str:
    """Return a short, stable stand-in for ``name``."""
    return str(zlib.crc32(name.encode()) % BUCKETS)


def admitted(votes: State, user: str | None, most: int) -> bool:
    """Return whether one more item of ``user`` counts. At most ``most`` items count until ``votes`` is
    cleared. Items without a user all count, because their user is not known."""
    if user is None:
        return True
    name = bucket(user)
    cast = votes.get(name, 0)
    if cast >= most:
        return False
    votes[name] = cast + 1
    return True


def is_first(seen: list[int], user: str | None) -> bool:
    """Return whether ``user`` was not counted before, and mark the user as counted. ``seen`` has one bit per
    hash, so two users may share a bit, and the second is left out. This keeps the state small, and is
    independent of the answers."""
    if user is None:
        return True
    word, bit = divmod(zlib.crc32(user.encode()) % (WORDS * BITS), BITS)
    seen.extend([0] * (WORDS - len(seen)))
    if seen[word] >> bit & 1:
        return False
    seen[word] |= 1 << bit
    return True
