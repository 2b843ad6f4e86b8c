"""One-time login links, and a limit on failed logins."""

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
"""How many unused links one principal may have. One more replaces the oldest."""
FAILURES = 20
"""How many failed logins one address may have per ``FAILURE_SECONDS``."""
FAILURE_SECONDS = 60.0
ADDRESSES = 10_000
"""How many addresses with failed logins are remembered."""


@dataclass(frozen=True, slots=True)
class _Link:
    credential: Credential
    expires_at: float

    @property
    def principal(self) -> Principal:
        return self.credential.principal


class LoginLinks:
    """Links that log a browser in once, as the person who asked for the link. Only hashes are kept, in this
    process. A link ends with its first use, after ``LINK_SECONDS``, or with a restart."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._links: dict[str, _Link] = {}

    def make(self, credential: Credential) -> tuple[str, float]:
        """Return a new link's secret, and its end in seconds since 1970."""
        now = self._clock()
        self._links = {link_id: link for link_id, link in self._links.items() if link.expires_at > now}
        own = [link_id for link_id, link in self._links.items() if link.principal == credential.principal]
        for oldest in own[: max(0, len(own) + 1 - LINKS_EACH)]:
            del self._links[oldest]
        secret = secrets.token_urlsafe(32)
        self._links[_hash(secret)] = _Link(credential, now + LINK_SECONDS)
        return secret, now + LINK_SECONDS

    def use(self, secret: str) -> Credential:
        """Use up a link and return the credential of the person who asked for it.

        Raises:
            NotAuthenticated: the link is unknown, was used, or is too old.
        """
        link = self._links.pop(_hash(secret), None)
        if link is None or link.expires_at <= self._clock():
            raise NotAuthenticated("this link was used or is too old; ask for another one")
        return link.credential


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Attempts:
    """Counts the recent failed logins of each address."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def begin(self, address: str) -> bool:
        """Count an attempt as failed, until ``succeed`` is called. False: there were too many already, and
        this attempt is not counted. Counting first also limits attempts that are sent at the same time."""
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
        """Undo the count of the last ``begin``."""
        if failures := self._failures.get(address):
            failures.pop()
