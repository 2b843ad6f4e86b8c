"""Shares a process's file descriptors between its clients, its own connections and its files.

Whoever connects takes a descriptor, also without a key. A process without a free descriptor can neither open
a file nor connect to Kafka.
"""

from __future__ import annotations

import contextlib
import resource

UNLIMITED = 1 << 20
RESERVED = 128
"""Descriptors for files, Kafka, the store and the event loop."""


def raise_limit() -> None:
    """Raise the limit of open files of this process as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses "unlimited".
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_clients() -> int:
    """Return how many connections of clients all doors of the process may hold."""
    return _free() // 2


def most_requests() -> int:
    """Return how many requests may have a connection of the process at the same time. The rest of the
    descriptors is for such connections while they are kept for the next request."""
    return _free() // 3


def _free() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = UNLIMITED if limit == resource.RLIM_INFINITY else limit
    return max(6, limit - min(RESERVED, limit // 4))
