"""Computes whether a request fits its caller's limits: requests and tokens per minute, tokens per day and
month.

Minutes are sliding window counters: the usage of the previous clock minute counts in proportion to the part
of it that lies within the last 60 seconds. Each limit therefore needs only two numbers. Days and months are
calendar days and months in UTC. This module does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tunewheel_runtime.identity.roles import Limits

from tunewheel_serve_gateway.errors import ApiError, Headers

Unit = Literal["requests", "tokens"]
Period = Literal["minute", "day", "month"]

KINDS: tuple[tuple[str, Unit, Period], ...] = (
    ("requests_per_minute", "requests", "minute"),
    ("tokens_per_minute", "tokens", "minute"),
    ("tokens_per_day", "tokens", "day"),
    ("tokens_per_month", "tokens", "month"),
)
HEADERS: dict[Unit, list[bytes]] = {
    unit: [f"x-ratelimit-{part}-{unit}".encode() for part in ("limit", "remaining", "reset")]
    for unit in ("requests", "tokens")
}
SECONDS = {"minute": 60, "day": 86_400}
BYTES_PER_TOKEN = 3
"""Bytes of a request's JSON that count as one token. English has more than four bytes per token, so the
estimate is on the high side."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one caller. ``share``: the part of ``amount`` that one gateway admits where no Redis
    counts for all gateways."""

    name: str
    unit: Unit
    period: Period
    amount: int
    share: int


class Window(NamedTuple):
    """A minute, day or month. Consecutive windows have consecutive numbers."""

    number: int
    began: float
    seconds: float


class Count(NamedTuple):
    """Usage in a window, and in the window before."""

    current: int
    previous: int


class Charge(NamedTuple):
    """The amount that one request uses of one limit."""

    rule: Rule
    window: Window
    amount: int


class Standing(NamedTuple):
    """The usage of one limit, including the present request."""

    charge: Charge
    limit: int
    used: int
    reset_seconds: float
    """Seconds until the usage is zero, if no further request comes."""

    @property
    def is_exceeded(self) -> bool:
        return self.used > self.limit


class LimitReached(ApiError):
    """HTTP 429, with OpenAI's codes: ``rate_limit_exceeded``, or ``insufficient_quota`` for a budget."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, kind: str, code: str, retry_after: str | None, headers: Headers
    ) -> None:
        """``retry_after`` None: the request is larger than the limit, so a retry is never admitted."""
        super().__init__(message, code=code, retry_after=retry_after)
        self.kind = kind
        self.should_retry = False if retry_after is None or code == "insufficient_quota" else None
        self._headers = headers

    def headers(self) -> Headers:
        return [*super().headers(), *self._headers]


def rules_of(own: Limits | None, default: Limits, *, replicas: int) -> tuple[Rule, ...]:
    """Return a caller's limits. ``default`` supplies each limit that ``own`` does not have."""
    found: list[Rule] = []
    for name, unit, period in KINDS:
        amount = (getattr(own, name) if own else None) or getattr(default, name)
        if amount is not None:
            found.append(Rule(name, unit, period, amount, max(1, amount // replicas)))
    return tuple(found)


def window_at(period: Period, now: float) -> Window:
    """Return the window that contains ``now`` (Unix seconds)."""
    if period != "month":
        seconds = SECONDS[period]
        number = int(now // seconds)
        return Window(number, number * seconds, seconds)
    day = datetime.fromtimestamp(now, UTC)
    began = datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()
    after = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC).timestamp()
    return Window(day.year * 12 + day.month, began, after - began)


def standing(charge: Charge, count: Count, limit: int, now: float) -> Standing:
    """Return the usage of ``limit``. ``count`` must already include the charge."""
    window = charge.window
    left = window.began + window.seconds - now
    if charge.rule.period != "minute":
        return Standing(charge, limit, count.current, max(0.0, left))
    share = min(1.0, max(0.0, left / window.seconds))
    used = count.current + math.floor(count.previous * share)
    return Standing(charge, limit, used, max(0.0, left) + (window.seconds if count.current > 0 else 0.0))


def seconds_until_free(standing: Standing, count: Count, now: float) -> float | None:
    """Return the seconds after which a refused request would be admitted, if no other request comes. None:
    the request is larger than its limit. ``count`` still includes the charge."""
    charge = standing.charge
    window, current = charge.window, count.current - charge.amount
    room = standing.limit - charge.amount
    if room < 0:
        return None
    left = window.began + window.seconds - now
    if charge.rule.period != "minute":
        return left
    if current <= room:  # The previous minute's share must shrink far enough.
        return left - window.seconds * (room - current) / max(1, count.previous)
    return left + window.seconds * (1 - room / current)


def refusal(exceeded: Standing, wait: float | None, headers: Headers) -> LimitReached:
    """Return the error for a caller who has exceeded a limit."""
    rule = exceeded.charge.rule
    is_budget = rule.period != "minute"
    retry_after = None if wait is None else str(max(1, math.ceil(wait)))
    if wait is None:
        need = exceeded.charge.amount
        message = (
            f"Request too large: it may take {need} tokens, and {rule.name} is {exceeded.limit}; set a "
            "smaller max_tokens, or shorten the messages"
        )
    elif is_budget:
        message = (
            f"{rule.name} is {exceeded.limit}, and this {rule.period}'s tokens are used up; wait until the "
            f"next {rule.period} begins (UTC), or ask for a larger budget"
        )
    else:
        message = f"Rate limit reached: {rule.name} is {exceeded.limit}; try again in {retry_after} s"
    code = "insufficient_quota" if is_budget else "rate_limit_exceeded"
    kind = "insufficient_quota" if is_budget else rule.unit
    return LimitReached(message, kind=kind, code=code, retry_after=retry_after, headers=headers)


def headers_of(standings: Iterable[Standing]) -> Headers:
    """Return OpenAI's ``x-ratelimit-*`` headers, for the first limit of requests and the first of tokens."""
    headers: Headers = []
    seen: set[Unit] = set()
    for one in standings:
        unit = one.charge.rule.unit
        if unit in seen:
            continue
        seen.add(unit)
        limit, remaining, reset = HEADERS[unit]
        headers += (
            (limit, b"%d" % one.limit),
            (remaining, b"%d" % max(0, one.limit - one.used)),
            (reset, duration(one.reset_seconds).encode()),
        )
    return headers


def duration(seconds: float) -> str:
    """Format a duration as OpenAI's headers and Go do: ``120ms``, ``8.64s``, ``6m0s``."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def tokens_of(size: int) -> int:
    """Estimate the tokens of a prompt from the bytes of its request, on the high side. After the answer the
    engine's exact count replaces the estimate."""
    return -(-size // BYTES_PER_TOKEN)


def first_exceeded(standings: Sequence[Standing]) -> Standing | None:
    """Return the exceeded limit that is reported to the caller. A budget goes before a rate limit, because
    waiting a minute does not help."""
    exceeded = [one for one in standings if one.is_exceeded]
    return exceeded[-1] if exceeded else None
