"""Limits the requests in flight at this gateway, and the bytes of their bodies, of log-probabilities and of
answers that are held back.

Engines queue without limit and may be silent for minutes. Without these limits the clients would decide how
much memory the gateway takes. One caller gets a share, so that others are still answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Receive, Scope
from tunewheel_runtime.descriptors import most_requests
from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.connection import header, read_body
from tunewheel_serve_gateway.errors import Unavailable
from tunewheel_serve_gateway.limits.admission import LimitReached
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.settings import Settings

LOGPROB_BYTES = 80
"""Bytes that one log-probability takes in an answer's JSON: the token, its bytes and the number."""


@dataclass(slots=True)
class Load:
    """What is in flight, and the most that may be."""

    name: str
    most_requests: int
    most_bytes: int
    requests: int = 0
    bytes: int = 0


class Taken:
    """The part of ``loads`` that the request of ``scope`` takes."""

    __slots__ = ("_loads", "_owner", "_scope", "bytes", "requests")

    def __init__(self, owner: InFlight, loads: Sequence[Load], scope: Scope) -> None:
        self._owner = owner
        self._loads = loads
        self._scope = scope
        self.requests = self.bytes = 0

    def add(self, size: int, *, requests: int = 0) -> None:
        """Take ``size`` more bytes. A request that is alone in flight may take any number. Raises
        LimitReached."""
        for load in self._loads:
            others = load.requests - self.requests
            is_over = others + 1 > load.most_requests or load.bytes + size > load.most_bytes
            if others and size > 0 and is_over:
                raise self._owner.refusal(load)
        self._change(size, requests)

    def hold(self, size: int) -> None:
        """Take ``size`` more bytes for an answer that is held back. Raises Unavailable: others take too
        much."""
        try:
            self.add(size)
        except LimitReached as error:
            raise Unavailable(
                "too much of other answers is held back at this gateway; try again shortly",
                retry_after=error.retry_after,
            ) from error

    async def body(self, receive: Receive) -> bytes:
        """Return the whole body. Raises BodyTooLarge, ClientGone, LimitReached."""
        raw = await read_body(self._scope, receive, limit=self._owner.max_body_bytes)
        self.add(len(raw) - self.bytes)
        return raw

    def end(self) -> None:
        self._change(-self.bytes, -self.requests)

    def _change(self, size: int, requests: int) -> None:
        for load in (self, *self._loads):
            load.bytes += size
            load.requests += requests


class InFlight:
    """``max_body_bytes``: the largest body of a request."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        requests, share = min(settings.max_in_flight, most_requests()), settings.max_in_flight_share
        self._all = Load("this gateway", requests, settings.max_in_flight_bytes)
        self._share = (max(1, int(requests * share)), int(settings.max_in_flight_bytes * share))
        self._by_caller: dict[tuple[str | None, str], Load] = {}
        self._retry_after = str(settings.retry_after_seconds)
        self._metrics = metrics
        self.max_body_bytes = settings.max_body_bytes
        metrics.gauge("flight.requests", "Requests in flight", lambda: self._all.requests)
        metrics.gauge("flight.bytes", "Bytes that the requests in flight may take", lambda: self._all.bytes)

    @contextmanager
    def taken(self, caller: Caller, scope: Scope) -> Iterator[Taken]:
        """Count a request as in flight during the ``with`` block. Raises LimitReached."""
        loads, key = [self._all], ("", "")
        if caller.principal is not None:
            key = (caller.principal.issuer, caller.principal.name)
            loads.append(self._by_caller.setdefault(key, Load("your key", *self._share)))
        announced = header(scope, b"content-length")  # A body in chunks announces none.
        size = int(announced) if announced is not None and announced.isdigit() else self.max_body_bytes
        taken = Taken(self, loads, scope)
        try:
            taken.add(min(size, self.max_body_bytes), requests=1)
            yield taken
        finally:
            taken.end()
            if not loads[-1].requests:
                self._by_caller.pop(key, None)

    def refusal(self, load: Load) -> LimitReached:
        """Return the error for a request that ``load`` has no room for."""
        self._metrics.add("limits.refused")
        return LimitReached(
            f"{load.name} has as much in flight as it may ({load.most_requests} requests, or "
            f"{load.most_bytes} bytes of bodies, log-probabilities and held answers); "
            f"try again in {self._retry_after} s",
            kind="requests",
            code="rate_limit_exceeded",
            retry_after=self._retry_after,
            headers=[],
        )
