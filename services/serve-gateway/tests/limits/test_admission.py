"""Limits as arithmetic: windows, what is used, when to come again, what is told."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import ANYBODY, Caller, Limits
from tunewheel_serve_gateway.errors import BadRequest
from tunewheel_serve_gateway.limits import admitting
from tunewheel_serve_gateway.limits.admission import (
    Charge,
    Count,
    LimitReached,
    Rule,
    duration,
    rules_of,
    seconds_until_free,
    standing,
    window_at,
)
from tunewheel_serve_gateway.limits.admitting import Admission
from tunewheel_serve_gateway.limits.counts import Tally

NOON = datetime(2026, 12, 31, 12, 0, 15, tzinfo=UTC).timestamp()


class Counters:
    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        self.values[name] = self.values.get(name, 0) + amount


def admission(now: float = NOON, **limits: Any) -> Any:
    options = {name: limits.pop(name) for name in ("replicas", "max_input_tokens") if name in limits}
    counters: Any = Counters()
    return Admission(Limits(**limits), counters, clock=lambda: now, **options)


def caller(name: str, *, issuer: str | None = None, **limits: int) -> Caller:
    return Caller(Principal(name=name, issuer=issuer), (), Limits(**limits) if limits else None)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0ms"), (0.1196, "120ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (86_399.2, "24h0m0s")],
)
def test_times_are_told_as_openai_tells_them(seconds: float, told: str):
    assert duration(seconds) == told


def test_windows_are_of_the_clock_and_the_calendar():
    assert window_at("minute", NOON).seconds == 60
    month = window_at("month", NOON)
    assert datetime.fromtimestamp(month.began, UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert month.seconds == 31 * 86_400
    assert window_at("month", NOON + 86_400).number == month.number + 1
    assert window_at("day", NOON + 86_400).number == window_at("day", NOON).number + 1


def test_the_minute_before_fades():
    rule = Rule("requests_per_minute", "requests", "minute", 10, 10)
    charge = Charge(rule, window_at("minute", NOON), 1)
    assert standing(charge, Count(1, 8), 10, NOON).used == 1 + 6, (
        "three quarters of it are less than a minute ago"
    )


@given(
    amount=st.integers(1, 1_000),
    current=st.integers(0, 2_000),
    previous=st.integers(0, 2_000),
    limit=st.integers(1, 1_000),
    second=st.floats(0, 59.9),
)
def test_a_caller_is_admitted_after_the_wait_that_it_was_told(
    amount: int, current: int, previous: int, limit: int, second: float
):
    rule = Rule("tokens_per_minute", "tokens", "minute", limit, limit)
    now = 6_000 + second
    tally = Tally()
    tally.add(99, previous)
    count = tally.add(100, current + amount)
    refused = standing(Charge(rule, window_at("minute", now), amount), count, limit, now)
    assume(refused.is_exceeded)
    wait = seconds_until_free(refused, count, now)
    assert (wait is None) == (amount > limit)
    if wait is not None:
        tally.correct(100, -amount)
        later = now + wait + 1e-6
        window = window_at("minute", later)
        again = standing(Charge(rule, window, amount), tally.add(window.number, amount), limit, later)
        assert wait <= 120
        assert not again.is_exceeded


def test_a_late_refund_is_credited_to_the_minute_of_its_charge():
    tally = Tally()
    tally.add(7, 100)
    assert tally.add(8, 5) == Count(5, 100)
    tally.correct(7, -90)
    assert tally.add(8, 0) == Count(5, 10)
    tally.correct(6, -90)
    assert tally.add(8, 0) == Count(5, 10), "nothing of it counts any more"
    assert tally.add(10, 1) == Count(1, 0)


def test_a_key_has_its_own_limits_and_else_those_of_the_installation():
    default = Limits(requests_per_minute=60, tokens_per_day=1_000)
    rules = rules_of(Limits(requests_per_minute=5), default, replicas=1)
    assert [(rule.name, rule.amount) for rule in rules] == [
        ("requests_per_minute", 5),
        ("tokens_per_day", 1_000),
    ]
    assert rules_of(None, Limits(), replicas=1) == ()


@given(amount=st.integers(1, 10_000), replicas=st.integers(1, 20))
def test_shares_make_no_more_than_the_whole(amount: int, replicas: int):
    assume(amount >= replicas)
    (rule,) = rules_of(None, Limits(tokens_per_minute=amount), replicas=replicas)
    assert amount - replicas < rule.share * replicas <= amount


async def test_each_subject_of_an_issuer_has_the_default_to_itself():
    door = admission(requests_per_minute=1)
    await door.admit(caller("ann", issuer="https://login"), size=3, output_tokens=1)
    await door.admit(caller("bob", issuer="https://login"), size=3, output_tokens=1)
    await door.admit(caller("ann"), size=3, output_tokens=1)  # a key of the same name
    await door.admit(ANYBODY, size=3, output_tokens=1)
    with pytest.raises(LimitReached) as refused:
        await door.admit(caller("ann", issuer="https://login"), size=3, output_tokens=1)
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
    assert refused.value.retry_after == "105", "45 s of this minute, and the whole of the next"


async def test_tokens_are_charged_as_they_may_be_and_settled_as_they_were():
    door = admission(tokens_per_minute=100)
    admitted = await door.admit(caller("app"), size=30, output_tokens=50)
    assert (b"x-ratelimit-remaining-tokens", b"40") in admitted.headers
    with pytest.raises(LimitReached, match="tokens_per_minute is 100") as refused:
        await door.admit(caller("app"), size=30, output_tokens=50)
    assert dict(refused.value.headers())[b"x-ratelimit-remaining-tokens"] == b"0"
    admitted.used = 12
    await door.settle(admitted)
    again = await door.admit(caller("app"), size=30, output_tokens=50)
    assert (b"x-ratelimit-remaining-tokens", b"28") in again.headers


async def test_a_limit_may_go_while_a_request_of_it_is_answered():
    door = admission()
    admitted = await door.admit(
        caller("app", tokens_per_minute=100, tokens_per_day=100), size=30, output_tokens=50
    )
    await door.admit(caller("app", tokens_per_day=100), size=30, output_tokens=1)
    await door.settle(admitted)
    again = await door.admit(caller("app", tokens_per_day=100), size=30, output_tokens=1)
    assert (b"x-ratelimit-remaining-tokens", b"78") in again.headers


async def test_a_request_larger_than_its_limit_has_no_retry_time():
    door = admission(tokens_per_minute=100)
    with pytest.raises(LimitReached, match="Request too large") as refused:
        await door.admit(caller("app"), size=30, output_tokens=91)
    headers = dict(refused.value.headers())
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers
    await door.admit(caller("app"), size=30, output_tokens=90)


async def test_a_budget_is_told_before_a_minute():
    door = admission(tokens_per_minute=20, tokens_per_month=100, tokens_per_day=15)
    await door.admit(caller("app"), size=30, output_tokens=5)
    with pytest.raises(LimitReached, match="tokens_per_day is 15") as refused:
        await door.admit(caller("app"), size=30, output_tokens=5)
    assert refused.value.code == refused.value.type == "insufficient_quota"
    assert int(refused.value.retry_after or 0) == 12 * 3600 - 15
    assert dict(refused.value.headers())[b"x-should-retry"] == b"false"


async def test_a_negative_number_of_tokens_makes_no_room():
    door = admission(tokens_per_minute=100)
    admitted = await door.admit(caller("app"), size=30, output_tokens=-1_000)
    assert (b"x-ratelimit-remaining-tokens", b"90") in admitted.headers


async def test_a_long_prompt_is_refused_by_an_estimate():
    door = admission(max_input_tokens=100)
    await door.admit(caller("app"), size=300, output_tokens=1)
    with pytest.raises(BadRequest, match="101 tokens") as refused:
        await door.admit(caller("app"), size=301, output_tokens=1)
    assert refused.value.code == "context_length_exceeded"


async def test_callers_without_number_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admitting, "MOST_ACCOUNTS", 3)
    door = admission(requests_per_minute=1)
    for name in ("a", "b", "c", "d"):
        await door.admit(caller(name), size=3, output_tokens=1)
    assert len(door._accounts) == 3
    await door.admit(caller("a"), size=3, output_tokens=1)
    with pytest.raises(LimitReached):
        await door.admit(caller("d"), size=3, output_tokens=1)


@pytest.mark.parametrize("step", [-1, -40, -70, -3_600, 3_600, 86_400])
@pytest.mark.parametrize("after", [0, 50, 600])
async def test_a_clock_that_steps_and_comes_back_ends_no_limit(step: int, after: int):
    now = NOON + 30
    door = admission(requests_per_minute=5)
    door.clock = lambda: now

    async def admitted(asked: int = 100) -> int:
        count = 0
        for _ in range(asked):
            with contextlib.suppress(LimitReached):
                await door.admit(caller("app"), size=3, output_tokens=1)
                count += 1
        return count

    assert await admitted() == 5
    now += step
    assert await admitted() <= 5
    now += after - step
    assert await admitted() <= 5
    now += 1
    assert await admitted() <= 1


async def test_a_refund_after_a_step_of_the_clock_moves_no_window():
    now = NOON + 3_600
    door = admission(tokens_per_minute=100)
    door.clock = lambda: now
    early = await door.admit(caller("app"), size=30, output_tokens=80)
    now = NOON
    late = await door.admit(caller("app"), size=30, output_tokens=80)
    early.used = 0
    await door.settle(early)
    with pytest.raises(LimitReached):
        await door.admit(caller("app"), size=30, output_tokens=80)
    late.used = 10
    await door.settle(late)
    await door.admit(caller("app"), size=30, output_tokens=80)
