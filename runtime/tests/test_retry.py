from __future__ import annotations

import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_runtime.retry import Backoff, retry

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
