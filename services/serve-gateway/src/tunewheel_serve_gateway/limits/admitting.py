"""Charges a request to its caller before it is sent to an engine.

The most that the request may cost is charged first. After the answer the charge is corrected to the real
cost.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tunewheel_runtime.identity.roles import Caller, Limits

from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.errors import BadRequest, Headers, Unavailable
from tunewheel_serve_gateway.limits.admission import (
    Charge,
    Count,
    Period,
    Rule,
    Window,
    first_exceeded,
    headers_of,
    refusal,
    rules_of,
    seconds_until_free,
    standing,
    tokens_of,
    window_at,
)
from tunewheel_serve_gateway.limits.counts import SharedCounts, Tally
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.settings import Settings

MOST_ACCOUNTS = 10_000
"""Most callers whose usage is kept in memory. When there are more, the least recently seen is forgotten."""


@dataclass(slots=True)
class Account:
    """The limits of one caller, and the caller's usage at this gateway."""

    key: str
    rules: tuple[Rule, ...]
    tallies: dict[str, Tally]
    limits: Limits | None = None

    def add(self, charges: Sequence[Charge]) -> list[Count]:
        """Add the charges; return the usage after them."""
        return [self.tallies[rule.name].add(window.number, amount) for rule, window, amount in charges]

    def correct(self, charges: Sequence[Charge]) -> None:
        """Add the charges to what was added before. A charge's limit may have been removed meanwhile."""
        for rule, window, amount in charges:
            if (tally := self.tallies.get(rule.name)) is not None:
                tally.correct(window.number, amount)


@dataclass(slots=True)
class Admitted:
    """The charge for an admitted request."""

    account: Account | None
    charges: Sequence[Charge]
    headers: Headers
    prompt: int
    """The estimated tokens of the prompt."""
    tokens: int
    """All tokens that were charged."""
    everywhere: bool
    """Whether the charge was counted in Redis, for all gateways."""
    used: int = 0
    """Tokens that were really used; 0 until something was answered."""

    def take(self, exchange: Exchange) -> None:
        """Set the tokens that were used: the engine's count, or an estimate for an answer that broke off."""
        said = exchange.said_tokens
        self.used = (exchange.prompt_tokens or self.prompt) + said if said or exchange.prompt_tokens else 0
        if (withheld := exchange.withheld) is not None:
            self.used += withheld.prompt_tokens + withheld.completion_tokens

    def abandon(self) -> None:
        """Charge at least the prompt of a client that disconnected: the engine may have processed it."""
        self.used = self.used or self.prompt


class Admission:
    """Charges callers. Where Redis is configured, it counts for all gateways together. Otherwise each gateway
    admits up to its share of every limit."""

    def __init__(
        self,
        default: Limits,
        metrics: Metrics,
        *,
        replicas: int = 1,
        shared: SharedCounts | None = None,
        refuse_when_away: bool = False,
        max_input_tokens: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._default = default
        self._metrics = metrics
        self._replicas = replicas
        self._shared = shared
        self._refuse_when_away = refuse_when_away
        self._max_input = max_input_tokens
        self.clock = clock
        self._by_default = rules_of(None, default, replicas=replicas)
        self._windows: dict[Period, Window] = {}
        self._accounts: OrderedDict[tuple[str | None, str | None], Account] = OrderedDict()

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()

    async def admit(
        self, caller: Caller, *, size: int, output_tokens: int, param: str = "messages"
    ) -> Admitted:
        """Charge ``caller`` for a request of ``size`` bytes whose answer may have ``output_tokens``.
        ``param`` is the request's largest field, which an error names.

        Raises:
            LimitReached
            BadRequest: the prompt is too long.
            Unavailable: Redis is unavailable, and the settings admit nobody without it.
        """
        prompt = tokens_of(size)
        if self._max_input is not None and prompt > self._max_input:
            raise BadRequest(
                f"the prompt has up to {prompt} tokens, and the limit here is {self._max_input}; "
                f"shorten {param}",
                param=param,
                code="context_length_exceeded",
            )
        tokens = prompt + max(0, output_tokens)
        account = self._account(caller) if caller.limits is not None or self._by_default else None
        if account is None or not account.rules:
            return Admitted(None, (), [], prompt=prompt, tokens=tokens, everywhere=False)
        now = self.clock()
        charges = [
            Charge(rule, self._window(rule.period, now), 1 if rule.unit == "requests" else tokens)
            for rule in account.rules
        ]
        self._refuse_too_large(charges, now)
        headers, everywhere = await self._charge(account, charges, now)
        return Admitted(account, charges, headers, prompt=prompt, tokens=tokens, everywhere=everywhere)

    async def settle(self, admitted: Admitted) -> None:
        """Replace the charge by the tokens that were really used."""
        difference = admitted.used - admitted.tokens
        if admitted.account is None or difference == 0:
            return
        now = self.clock()
        charges = [
            Charge(rule, window, difference)
            for rule, window, _ in admitted.charges
            if rule.unit == "tokens" and now < window.began + 2 * window.seconds
        ]
        await self._correct(admitted.account, charges, everywhere=admitted.everywhere)

    def _refuse_too_large(self, charges: Sequence[Charge], now: float) -> None:
        """Refuse a request that is larger than a limit, before it is counted: Redis' integers are bounded.
        Raises LimitReached."""
        limits = [rule.share if self._shared is None else rule.amount for rule, _, _ in charges]
        standings = [
            standing(charge, Count(charge.amount, 0), limit, now)
            for charge, limit in zip(charges, limits, strict=True)
            if charge.amount > limit
        ]
        exceeded = first_exceeded(standings)
        if exceeded is not None:
            self._metrics.add("limits.refused")
            raise refusal(exceeded, None, headers_of([exceeded]))

    async def _charge(self, account: Account, charges: list[Charge], now: float) -> tuple[Headers, bool]:
        """Return the rate limit headers, and whether Redis counted the charge for all gateways."""
        here = account.add(charges)  # Always, so that this gateway can go on alone if Redis fails.
        everywhere = None if self._shared is None else await self._shared.add(account.key, charges)
        if self._shared is not None and everywhere is None:
            self._metrics.add("limits.away")
            if self._refuse_when_away:
                await self._take_back(account, charges, everywhere=False)
                reason = "the limits of callers cannot be read from Redis; try again shortly"
                raise Unavailable(reason, retry_after="2")
        counts = here if everywhere is None else everywhere
        standings = [
            standing(charge, count, charge.rule.share if everywhere is None else charge.rule.amount, now)
            for charge, count in zip(charges, counts, strict=True)
        ]
        exceeded = first_exceeded(standings)
        headers = headers_of(standings)
        if exceeded is None:
            return headers, everywhere is not None
        await self._take_back(account, charges, everywhere=everywhere is not None)
        self._metrics.add("limits.refused")
        wait = seconds_until_free(exceeded, counts[standings.index(exceeded)], now)
        raise refusal(exceeded, wait, headers)

    def _window(self, period: Period, now: float) -> Window:
        """Return the window of ``now``. A clock that is set back by less than a window stays in the window
        that had begun."""
        window = self._windows.get(period)
        if window is None or not -window.seconds <= now - window.began < window.seconds:
            window = self._windows[period] = window_at(period, now)
        return window

    async def _correct(self, account: Account, charges: Sequence[Charge], *, everywhere: bool) -> None:
        account.correct(charges)
        if self._shared is not None and charges and everywhere:
            await self._shared.correct(account.key, charges)

    async def _take_back(self, account: Account, charges: Sequence[Charge], *, everywhere: bool) -> None:
        back = [Charge(rule, window, -amount) for rule, window, amount in charges]
        await self._correct(account, back, everywhere=everywhere)

    def _account(self, caller: Caller) -> Account:
        principal = caller.principal
        name = (None, None) if principal is None else (principal.issuer, principal.name)
        account = self._accounts.get(name)
        if account is None:
            tallies = {rule.name: Tally() for rule in self._by_default}
            account = self._accounts[name] = Account(_key_of(name), self._by_default, tallies)
            if len(self._accounts) > MOST_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(name)
        if account.limits is not caller.limits:  # The file of keys was reloaded.
            account.limits = caller.limits
            account.rules = rules_of(caller.limits, self._default, replicas=self._replicas)
            account.tallies = {r.name: account.tallies.get(r.name) or Tally() for r in account.rules}
        return account


def _key_of(name: tuple[str | None, str | None]) -> str:
    """Return the caller's key in Redis: a hash, so that Redis does not hold the caller's name."""
    return blake2b(
        "\n".join(part or "" for part in name).encode("utf-8", "replace"), digest_size=12
    ).hexdigest()


def make_admission(settings: Settings, metrics: Metrics) -> Admission:
    """Build the admission from the settings."""
    url = settings.limits_url
    shared = None
    if url is not None:
        shared = SharedCounts(
            url.get_secret_value(),
            timeout_seconds=settings.limits_timeout_seconds,
            installation=settings.topic_prefix,
        )
    return Admission(
        Limits(
            requests_per_minute=settings.limit_requests_per_minute,
            tokens_per_minute=settings.limit_tokens_per_minute,
            tokens_per_day=settings.limit_tokens_per_day,
            tokens_per_month=settings.limit_tokens_per_month,
        ),
        metrics,
        replicas=settings.limits_replicas,
        shared=shared,
        refuse_when_away=settings.limits_when_away == "refuse",
        max_input_tokens=settings.max_input_tokens,
    )
