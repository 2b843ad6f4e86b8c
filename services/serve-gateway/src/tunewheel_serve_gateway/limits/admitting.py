"""The door of the gateway: what a request may cost is charged to its caller before the engine is asked."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

from tunewheel_runtime.identity.limits import Limits
from tunewheel_runtime.identity.roles import Caller

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
"""Callers whose use is remembered here; beyond it, those that were silent longest are forgotten."""


class Account:
    """What one caller may use, and has used by this gateway."""

    __slots__ = ("key", "limits", "rules", "tallies")

    def __init__(self, key: str) -> None:
        self.key = key
        self.limits: Limits | None = None
        self.rules: tuple[Rule, ...] = ()
        self.tallies: dict[str, Tally] = {}

    def add(self, charges: Sequence[Charge]) -> list[Count]:
        """Return what is used then. A limit may have gone while a request of it was answered."""
        tallies = self.tallies
        return [
            tallies.setdefault(rule.name, Tally()).add(window.number, amount)
            for rule, window, amount in charges
        ]


class Admitted:
    """What was charged for a request that may be answered."""

    __slots__ = ("_prompt", "account", "charges", "everywhere", "headers", "tokens", "used")

    def __init__(
        self,
        account: Account | None,
        charges: Sequence[Charge],
        headers: Headers,
        *,
        prompt: int,
        tokens: int,
        everywhere: bool,
    ) -> None:
        """``tokens``: charged; ``prompt``: of them, those of the prompt, as estimated. ``everywhere``: for
        all gateways, not for this one alone."""
        self.account = account
        self.charges = charges
        self.headers = headers
        self.tokens = tokens
        self.everywhere = everywhere
        self._prompt = prompt
        self.used = 0
        """Tokens: none, until something was answered."""

    def take(self, exchange: Exchange) -> None:
        """Take over what was used: as the engine counts, or as was seen of an answer that was broken off."""
        said = exchange.said_tokens
        self.used = (exchange.prompt_tokens or self._prompt) + said if said or exchange.prompt_tokens else 0

    def abandon(self) -> None:
        """Charge the prompt, where its caller went away: the engine may have read it by then."""
        self.used = self.used or self._prompt


class Admission:
    """Charges callers for what they ask: in Redis where there is one, for all gateways together. Without,
    each gateway grants its share of every limit by itself."""

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
        """Charge ``caller`` for a request of ``size`` bytes, most of them in its field ``param``, whose
        answer may have ``output_tokens``.

        Raises:
            LimitReached
            BadRequest: the prompt is too long.
            Unavailable: Redis is away, and nobody is to be admitted without.
        """
        prompt = tokens_of(size)
        if self._max_input is not None and prompt > self._max_input:
            raise BadRequest(
                f"the prompt has up to {prompt} tokens, and at most {self._max_input} are taken here; "
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
        """Charge what was used in place of what might have been."""
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
        """Refuse what no wait would admit before it is counted: Redis cannot add any number of tokens.

        Raises:
            LimitReached
        """
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
        """Return what the caller is told of its limits, and whether all gateways know of the charge."""
        here, everywhere = await self._add(account, charges)
        if self._shared is not None and everywhere is None:
            self._metrics.add("limits.away")
            if self._refuse_when_away:
                await self._take_back(account, charges, everywhere=False)
                reason = "the limits of callers cannot be looked up; try again shortly"
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
        window = self._windows.get(period)
        if window is None or not window.began <= now < window.began + window.seconds:
            window = self._windows[period] = window_at(period, now)
        return window

    async def _add(
        self, account: Account, charges: Sequence[Charge]
    ) -> tuple[list[Count], list[Count] | None]:
        """Return what is used by this gateway, and by all of them. It is counted here too where Redis is
        asked: if Redis goes away, this gateway goes on from there."""
        here = account.add(charges)
        if self._shared is None:
            return here, None
        return here, await self._shared.add(account.key, charges)

    async def _correct(self, account: Account, charges: Sequence[Charge], *, everywhere: bool) -> None:
        account.add(charges)
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
            account = self._accounts[name] = Account(_key_of(name))
            account.rules = self._by_default
            account.tallies = {rule.name: Tally() for rule in account.rules}
            if len(self._accounts) > MOST_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(name)
        if account.limits is not caller.limits:  # the file of keys was read anew
            account.limits = caller.limits
            account.rules = rules_of(caller.limits, self._default, replicas=self._replicas)
            account.tallies = {r.name: account.tallies.get(r.name) or Tally() for r in account.rules}
        return account


def _key_of(name: tuple[str | None, str | None]) -> str:
    """Return what a caller is called in Redis, which need not know whose name it is."""
    return blake2b(
        "\n".join(part or "" for part in name).encode("utf-8", "replace"), digest_size=12
    ).hexdigest()


def make_admission(settings: Settings, metrics: Metrics) -> Admission:
    """Return what the settings say of limits."""
    url = settings.limits_url
    shared = None
    if url is not None:
        shared = SharedCounts(url.get_secret_value(), timeout_seconds=settings.limits_timeout_seconds)
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
