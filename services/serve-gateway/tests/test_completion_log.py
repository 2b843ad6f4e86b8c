from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_serve_gateway.completion_log import CompletionLog
from tunewheel_serve_gateway.exchange import Exchange
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.recent import RecentCompletions
from tunewheel_serve_gateway.spool import Spool


def exchange(n: int, *, text: str = "hi") -> Exchange:
    made = Exchange("desk", f"c-{n}", "desk-1", RouteRole.PRODUCTION, (("user", text),))
    made.output = text
    made.finish(0.1)
    return made


class Log:
    """A completion log, its broker and its metrics."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.reader = InMemoryMetricReader()
        self.metrics = Metrics(MeterProvider(metric_readers=[self.reader]).get_meter("test"))
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.errors: list[Exception] = []
        self.event_ids: list[str] = []
        self.spool = Spool(directory)
        self.log = CompletionLog(
            lambda data: new_event(data, source="/test"), self._publish, self.metrics, self.spool, **options
        )

    async def _publish(self, envelopes: Any) -> None:
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        if any(len(e.data.output) > 100 for e in envelopes):
            raise InvalidEvent(field="(body)", reason="is over the limit")
        self.event_ids += [e.id for e in envelopes]
        self.batches.append([e.data.completion_id for e in envelopes])

    @property
    def published(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def exported(self, name: str) -> int:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        found = next(m for m in metrics if m.name == name)
        return sum(point.value for point in found.data.data_points)  # type: ignore[union-attr,misc]


@pytest.fixture
def make_log(tmp_path: Path) -> Any:
    """Return a maker of logs over one spool: the second is the first one's next process."""
    return lambda **options: Log(tmp_path / "spool", **options)


async def test_completions_are_published_in_batches_and_in_order(make_log: Any, eventually: Any):
    log = make_log(batch=4)
    log.log.start()
    for n in range(10):
        assert log.log.offer(exchange(n))
    await eventually(lambda: len(log.published) == 10)
    assert log.published == [f"c-{n}" for n in range(10)]
    assert max(len(batch) for batch in log.batches) == 4
    await log.log.close(timeout_seconds=1)


async def test_a_full_queue_drops_the_newest_and_counts_it(make_log: Any, eventually: Any):
    log = make_log(limit=3)
    log.open.clear()
    log.log.start()
    assert [log.log.offer(exchange(n)) for n in range(5)] == [True, True, True, False, False]
    assert log.metrics.value("log.dropped") == 2
    assert log.exported("tunewheel.gateway.log.dropped") == 2
    assert "tunewheel_gateway_log_dropped_total 2" in log.metrics.render()
    assert "tunewheel_gateway_log_waiting 3" in log.metrics.render()
    log.open.set()
    await eventually(lambda: log.published == ["c-0", "c-1", "c-2"])
    assert log.log.offer(exchange(9))
    await log.log.close(timeout_seconds=1)
    assert log.published[-1] == "c-9"


async def test_the_queue_is_bounded_in_bytes_too(make_log: Any):
    log = make_log(limit_bytes=6_000)
    assert log.log.offer(exchange(0, text="x" * 2_000))
    assert not log.log.offer(exchange(1, text="x" * 2_000))
    assert log.log.offer(exchange(2))


LARGE = "x" * 3_000


@pytest.mark.parametrize(
    "changes",
    [
        {"user": LARGE},
        {"error": LARGE},
        {"finish_reason": LARGE},
        {"output": LARGE},
        {"output": "🚲" * 700},  # four bytes each
        {"messages": (("user", "🚲" * 700),)},
        {"messages": (("user", ""),) * 40},
    ],
    ids=["user", "error", "finish_reason", "output", "wide output", "wide text", "many messages"],
)
def test_whatever_makes_a_completion_large_counts(make_log: Any, changes: dict[str, Any]):
    log = make_log(limit_bytes=6_500)
    recent = RecentCompletions(limit=100, limit_bytes=6_500)
    for n in range(2):
        large = exchange(n)
        for name, value in changes.items():
            setattr(large, name, value)
        assert log.log.offer(large) == (n == 0)
        recent.remember(large)
    assert (len(recent), recent.get("c-0")) == (1, None)


async def test_a_broker_that_comes_back_gets_everything(make_log: Any, eventually: Any):
    log = make_log()
    log.errors = [TransientError("away"), TransientError("away")]
    log.log.start()
    log.log.offer(exchange(0))
    log.log.offer(exchange(1))
    await eventually(lambda: log.published == ["c-0", "c-1"])
    assert log.metrics.value("log.dropped") == 0
    await log.log.close(timeout_seconds=1)


async def test_closing_flushes(make_log: Any):
    log = make_log(linger_seconds=3600)
    log.log.start()
    for n in range(7):
        log.log.offer(exchange(n))
    await asyncio.sleep(0)
    await log.log.close(timeout_seconds=5)
    assert len(log.published) == 7


async def test_closing_without_a_broker_ends_and_the_next_process_publishes(make_log: Any, eventually: Any):
    log = make_log()
    log.open.clear()
    log.log.start()
    log.log.offer(exchange(0))
    await log.log.close(timeout_seconds=0.05)
    assert (log.published, log.metrics.value("log.dropped")) == ([], 0)
    after = make_log()
    await after.log.recover()
    assert after.metrics.value("log.recovered") == 1
    after.log.offer(exchange(1))
    after.log.start()
    await eventually(lambda: after.published == ["c-0", "c-1"])
    await after.log.close(timeout_seconds=1)
    assert after.spool.size_bytes == 0


async def test_what_was_published_and_not_noted_comes_again_under_the_same_id(make_log: Any, eventually: Any):
    log = make_log()
    log.log.offer(exchange(0))
    await log._publish([log.log._wrap(exchange(0).event_data())])  # and then it is killed
    log.spool.close()
    after = make_log()
    await after.log.recover()
    after.log.start()
    await eventually(lambda: after.published == ["c-0"])
    assert after.event_ids == log.event_ids
    await after.log.close(timeout_seconds=1)


async def test_a_disk_that_takes_nothing_is_counted_and_the_completion_published(
    make_log: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
):
    log = make_log()
    monkeypatch.setattr(log.spool, "append", lambda _: None)
    log.log.start()
    assert log.log.offer(exchange(0))
    await eventually(lambda: log.published == ["c-0"])
    assert log.metrics.value("log.unspooled") == 1
    log.open.clear()
    log.log.offer(exchange(1))
    await log.log.close(timeout_seconds=0.05)
    assert log.metrics.value("log.dropped") == 1


async def test_an_event_that_is_too_large_does_not_hold_up_the_others(make_log: Any, eventually: Any):
    log = make_log()
    log.log.offer(exchange(0))
    log.log.offer(exchange(1, text="x" * 200))
    log.log.offer(exchange(2))
    log.log.start()
    await eventually(lambda: log.published == ["c-0", "c-2"])
    assert log.metrics.value("log.dropped") == 1
    await eventually(lambda: log.spool.size_bytes == 0)
    await log.log.close(timeout_seconds=1)


def test_the_pieces_of_a_stream_are_not_held_once_it_is_over():
    streamed = Exchange("desk", "c-0", "desk-1", RouteRole.PRODUCTION, (("user", "hi"),))
    for piece in ("Good", " day"):
        assert streamed.take_chunk({"choices": [{"delta": {"content": piece}}]})
    streamed.finish(0.1)
    assert (streamed.output, streamed._parts) == ("Good day", [])


async def test_a_log_that_breaks_stops_the_service(world: Any, eventually: Any):
    async def broken(_: Any) -> None:
        raise RuntimeError("a bug")

    whole, world.gateway.log._publish_many = world.gateway.log._publish_many, broken
    await world.said()
    await eventually(lambda: world.broker.failures)
    assert str(world.broker.failures[0]) == "a bug"
    assert await world.said() == "desk-1: hello"
    world.gateway.log._publish_many = whole


def by(n: int, user: str) -> Exchange:
    made = exchange(n, text=f"I am {user}")
    made.user = user
    return made


def is_erased(one: Exchange) -> bool:
    return one.user == "C-7"


def on_disk(log: Any) -> str:
    return "".join(path.read_text("utf-8") for path in log.spool._directory.glob("*.jsonl"))


async def test_what_is_erased_leaves_the_queue_and_the_disk(make_log: Any, eventually: Any):
    log = make_log(batch=2)
    log.open.clear()
    for n, user in enumerate(("C-1", "C-7", "C-7", "C-2")):
        log.log.offer(by(n, user))
    log.log.start()
    await eventually(lambda: log.log._flying == 2)
    log.log.forget(is_erased)
    log.log.offer(by(4, "C-3"))
    with pytest.raises(TransientError):
        await log.log.forgotten(timeout_seconds=0.01)
    log.open.set()
    await log.log.forgotten(timeout_seconds=10)
    assert "C-7" not in on_disk(log)
    await eventually(lambda: log.published == ["c-0", "c-1", "c-3", "c-4"])  # c-1 was on its way
    await log.log.close(timeout_seconds=1)
    assert log.spool.size_bytes == 0


async def test_what_was_erased_while_a_process_was_down_is_not_published(make_log: Any, eventually: Any):
    log = make_log()
    log.open.clear()
    for n, user in enumerate(("C-7", "C-1")):
        log.log.offer(by(n, user))
    await log.log.close(timeout_seconds=0.01)
    after = make_log()
    await after.log.recover(is_erased)
    after.log.start()
    await after.log.forgotten(timeout_seconds=10)
    assert after.published == ["c-1"]
    assert "C-7" not in on_disk(after)
    await after.log.close(timeout_seconds=1)


async def test_nothing_waits_where_nothing_is_on_the_disk(make_log: Any):
    log = make_log()
    log.log.forget(is_erased)
    await log.log.forgotten(timeout_seconds=0.01)


async def test_a_client_s_name_for_the_user_that_no_event_can_hold_loses_no_completion(
    make_log: Any, eventually: Any
):
    log, odd = make_log(), exchange(0)
    odd.user = LARGE
    log.log.offer(odd)
    log.log.offer(by(1, "C-1"))
    log.log.start()
    await eventually(lambda: log.published == ["c-0", "c-1"])
    assert (odd.event_data().customer, by(1, "C-1").event_data().customer) == (None, "C-1")
    await log.log.close(timeout_seconds=1)
