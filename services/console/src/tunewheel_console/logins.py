"""What begins a session: one-time links, and how often somebody may try."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Credential
from tunewheel_runtime.identity.roles import NotAuthenticated

LINK_SECONDS = 600.0
LINKS_EACH = 8
"""Unused links that one principal may have; a further one takes the place of the oldest."""
FAILURES = 20
"""Failed attempts to log in that one address has per ``FAILURE_SECONDS``."""
FAILURE_SECONDS = 60.0
ADDRESSES = 10_000
"""Addresses whose failures are remembered at once."""


@dataclass(frozen=True, slots=True)
class _Link:
    credential: Credential
    expires_at: float

    @property
    def principal(self) -> Principal:
        return self.credential.principal


class LoginLinks:
    """Links that log a browser in once, as whoever asked for them. Only their hashes are kept, in this
    process: a link is used up by its first use, by ``LINK_SECONDS``, and by a restart."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._links: dict[str, _Link] = {}

    def make(self, credential: Credential) -> tuple[str, float]:
        """Return a link's secret, and when it ends in seconds since 1970."""
        now = self._clock()
        self._links = {known: link for known, link in self._links.items() if link.expires_at > now}
        own = [known for known, link in self._links.items() if link.principal == credential.principal]
        for oldest in own[: max(0, len(own) + 1 - LINKS_EACH)]:
            del self._links[oldest]
        secret = secrets.token_urlsafe(32)
        self._links[_hash(secret)] = _Link(credential, now + LINK_SECONDS)
        return secret, now + LINK_SECONDS

    def use(self, secret: str) -> Credential:
        """Return who asked for this link, and let nobody use it again.

        Raises:
            NotAuthenticated: it is unknown, was used, or is too old.
        """
        link = self._links.pop(_hash(secret), None)
        if link is None or link.expires_at <= self._clock():
            raise NotAuthenticated("this link was used or is too old; ask for another one")
        return link.credential


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Attempts:
    """How often each address has failed to log in of late."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def begin(self, address: str) -> bool:
        """Count an attempt as failed until ``succeed``; False where there were too many, which is not
        counted. Counted first, so that attempts sent all at once are limited too."""
        since = self._clock() - FAILURE_SECONDS
        failures = self._failures.pop(address, deque[float]())
        while failures and failures[0] <= since:
            failures.popleft()
        allowed = len(failures) < FAILURES
        if allowed:
            failures.append(self._clock())
        self._failures[address] = failures
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]
        return allowed

    def succeed(self, address: str) -> None:
        """Take back what the last ``begin`` counted."""
        if failures := self._failures.get(address):
            failures.pop()
