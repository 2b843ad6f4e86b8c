"""Whether a caller may ask now: requests and tokens per minute, and budgets of tokens. Pure.

A minute slides: what was used in the clock's minute before counts for the share of it that is less than 60
seconds ago (a sliding window counter). So each limit needs two numbers, however large it is. Days and months
are those of the calendar, in UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tunewheel_runtime.identity.limits import Limits

from tunewheel_serve_gateway.errors import ApiError, Headers

Unit = Literal["requests", "tokens"]
Period = Literal["minute", "day", "month"]

KINDS: tuple[tuple[str, Unit, Period], ...] = (
    ("requests_per_minute", "requests", "minute"),
    ("tokens_per_minute", "tokens", "minute"),
    ("tokens_per_day", "tokens", "day"),
    ("tokens_per_month", "tokens", "month"),
)
HEADERS: dict[Unit, tuple[bytes, bytes, bytes]] = {
    "requests": (
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-requests",
    ),
    "tokens": (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
}
SECONDS = {"minute": 60, "day": 86_400}
BYTES_PER_TOKEN = 3
"""Of a request's JSON. English has more than four bytes a token, so this counts rather too many."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one caller. ``share``: of ``amount``, what one of several gateways grants by itself."""

    name: str
    unit: Unit
    period: Period
    amount: int
    share: int


class Window(NamedTuple):
    """A minute, day or month. Consecutive ones have consecutive numbers."""

    number: int
    began: float
    seconds: float


class Count(NamedTuple):
    """What was used in a window, and in the one before."""

    current: int
    previous: int


class Charge(NamedTuple):
    """What one request uses of one limit."""

    rule: Rule
    window: Window
    amount: int


class Standing(NamedTuple):
    """What is used of one limit, the request that asks included."""

    charge: Charge
    limit: int
    used: int
    reset_seconds: float
    """Until nothing of it is used, if nobody asks."""

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
        """``retry_after`` None: the same request is never admitted."""
        super().__init__(message, code=code, retry_after=retry_after)
        self.kind = kind
        self.should_retry = False if retry_after is None or code == "insufficient_quota" else None
        self._headers = headers

    def headers(self) -> Headers:
        return [*super().headers(), *self._headers]


def rules_of(own: Limits | None, default: Limits, *, replicas: int) -> tuple[Rule, ...]:
    """Return the limits that hold for a caller: its ``own``, and ``default`` where it has none of a kind."""
    found: list[Rule] = []
    for name, unit, period in KINDS:
        amount = (getattr(own, name) if own else None) or getattr(default, name)
        if amount is not None:
            found.append(Rule(name, unit, period, amount, max(1, amount // replicas)))
    return tuple(found)


def window_at(period: Period, now: float) -> Window:
    """Return the window that ``now``, in seconds since 1970, lies in."""
    if period != "month":
        seconds = SECONDS[period]
        number = int(now // seconds)
        return Window(number, number * seconds, seconds)
    day = datetime.fromtimestamp(now, UTC)
    began = datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()
    after = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC).timestamp()
    return Window(day.year * 12 + day.month, began, after - began)


def standing(charge: Charge, count: Count, limit: int, now: float) -> Standing:
    """Return what is used of ``limit``; ``count`` has the charge in it already."""
    window = charge.window
    left = window.began + window.seconds - now
    if charge.rule.period != "minute":
        return Standing(charge, limit, count.current, max(0.0, left))
    share = min(1.0, max(0.0, left / window.seconds))
    used = count.current + math.floor(count.previous * share)
    return Standing(charge, limit, used, max(0.0, left) + (window.seconds if count.current > 0 else 0.0))


def seconds_until_free(standing: Standing, count: Count, now: float) -> float | None:
    """Return when a refused request may come again, if nobody else asks; None: it is larger than its limit.
    ``count`` has the charge in it still."""
    charge = standing.charge
    window, current = charge.window, count.current - charge.amount
    room = standing.limit - charge.amount
    if room < 0:
        return None
    left = window.began + window.seconds - now
    if charge.rule.period != "minute":
        return left
    if current <= room:  # once enough of the minute before is over
        return left - window.seconds * (room - current) / max(1, count.previous)
    return left + window.seconds * (1 - room / current)


def refusal(exceeded: Standing, wait: float | None, headers: Headers) -> LimitReached:
    """Return what the caller is told of the limit that it has ``exceeded``."""
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
            f"{rule.name} is {exceeded.limit}, and this {rule.period}'s are used up; wait until the next "
            f"{rule.period} begins (UTC), or ask for a larger budget"
        )
    else:
        message = f"Rate limit reached: {rule.name} is {exceeded.limit}; try again in {retry_after} s"
    code = "insufficient_quota" if is_budget else "rate_limit_exceeded"
    kind = "insufficient_quota" if is_budget else rule.unit
    return LimitReached(message, kind=kind, code=code, retry_after=retry_after, headers=headers)


def headers_of(standings: Iterable[Standing]) -> Headers:
    """Return OpenAI's ``x-ratelimit-*`` of the first limit on requests, and of the first on tokens."""
    told: Headers = []
    seen: set[Unit] = set()
    for one in standings:
        unit = one.charge.rule.unit
        if unit in seen:
            continue
        seen.add(unit)
        limit, remaining, reset = HEADERS[unit]
        told += (
            (limit, b"%d" % one.limit),
            (remaining, b"%d" % max(0, one.limit - one.used)),
            (reset, duration(one.reset_seconds).encode()),
        )
    return told


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers have it, and Go writes one: ``120ms``, ``8.64s``, ``6m0s``."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def tokens_of(size: int) -> int:
    """Return about how many tokens a prompt has, rather too many, by the bytes of its request. No tokenizer
    is asked: the engine counts exactly, and its count is what stays charged."""
    return -(-size // BYTES_PER_TOKEN)


def first_exceeded(standings: Sequence[Standing]) -> Standing | None:
    """Return the limit to tell the caller of: a budget first, since waiting a minute does not help there."""
    exceeded = [one for one in standings if one.is_exceeded]
    return exceeded[-1] if exceeded else None
