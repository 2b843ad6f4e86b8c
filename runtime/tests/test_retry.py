from __future__ import annotations

import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.subscriptions import LONGEST_HANDLING_MS
from tunewheel_testing.clock import Clock

QUICK = Backoff(attempts=3, first=0.001, longest=0.002)


async def test_returns_once_the_world_has_mended() -> None:
    failures = [TransientError("away"), ConnectionError("reset")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await retry(call, QUICK, what="test") == "done"


async def test_gives_up_and_says_how_often_it_tried() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise TransientError("still away")

    with pytest.raises(TransientError, match="gave up after 3 attempts: still away"):
        await retry(call, QUICK, what="test")
    assert calls == 3


@pytest.mark.parametrize("error", [InvalidEvent(field="body", reason="is wrong"), ValueError("bug")])
async def test_never_repeats_what_time_cannot_mend(error: Exception) -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)):
        await retry(call, QUICK, what="test")
    assert calls == 1


def test_delays_grow_up_to_the_longest() -> None:
    backoff = Backoff(attempts=9, first=1.0, longest=10.0)
    assert all(0.5 <= backoff.delay(0) <= 1.0 for _ in range(20))
    assert all(5.0 <= backoff.delay(8) <= 10.0 for _ in range(20))


def default_backoff(settings: ServiceSettings) -> Backoff:
    return Backoff(
        settings.retry_attempts, settings.retry_first_delay_seconds, settings.retry_max_delay_seconds
    )


async def test_a_store_that_is_away_for_ten_minutes_stops_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", min)
    clock = Clock()

    async def read() -> str:
        if clock.now < 600:
            raise TransientError("the store is away")
        return "done"

    assert await retry(read, default_backoff(ServiceSettings()), what="test", sleep=clock.sleep) == "done"


async def test_a_handler_keeps_its_partition_for_as_long_as_it_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", max)
    clock, settings = Clock(), ServiceSettings()

    async def publish() -> None:
        clock.now += settings.publish_seconds
        raise TransientError("the broker is away")

    with pytest.raises(TransientError, match="gave up"):
        await retry(publish, default_backoff(settings), what="test", sleep=clock.sleep)
    assert clock.now * 1_000 < LONGEST_HANDLING_MS
