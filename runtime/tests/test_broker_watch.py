"""A broker that goes away later: told after a while, forgotten once it answers."""

from __future__ import annotations

from aiokafka.errors import KafkaConnectionError
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.broker_watch import LAG_SECONDS, BrokerWatch, Lag


class Broker:
    """Stands where Kafka does; ``error`` is what asking it raises."""

    def __init__(self) -> None:
        self.now = 0.0
        self.error: Exception | None = None
        self.behind: dict[tuple[str, str, str], float] = {}
        self.lag_error: Exception | None = None
        self.watch = BrokerWatch(self.ask, self.measure, patience_seconds=60, clock=lambda: self.now)

    async def ask(self) -> None:
        if self.error is not None:
            raise self.error

    async def measure(self) -> Lag:
        if self.lag_error is not None:
            raise self.lag_error
        return dict(self.behind)

    async def after(self, seconds: float) -> None:
        self.now += seconds
        await self.watch.look()


async def test_a_broker_is_lost_once_it_was_silent_for_longer_than_the_patience() -> None:
    broker = Broker()
    await broker.after(5)
    for error in (TransientError("no broker answers"), KafkaConnectionError(), TimeoutError(), OSError()):
        broker.error = error
        await broker.after(5)
        assert (broker.watch.silent_seconds > 0, broker.watch.lost) == (True, False)
    await broker.after(40)
    assert (broker.watch.silent_seconds, broker.watch.lost) == (60, False)
    await broker.after(5)
    assert broker.watch.lost
    broker.error = None
    await broker.after(5)
    assert (broker.watch.silent_seconds, broker.watch.lost) == (0, False)


async def test_a_process_that_starts_in_an_outage_counts_from_its_start() -> None:
    broker = Broker()
    broker.now = 90
    assert (broker.watch.silent_seconds, broker.watch.lost) == (90, True)
    broker.watch.start()  # the broker was reached
    assert (broker.watch.silent_seconds, broker.watch.lost) == (0, False)
    await broker.watch.stop()  # the start failed after all, and is tried again
    broker.now += 70
    assert (broker.watch.silent_seconds, broker.watch.lost) == (70, True)


async def test_time_without_a_question_is_no_silence() -> None:
    broker = Broker()
    await broker.after(5)
    broker.now += 3_600
    assert (broker.watch.silent_seconds, broker.watch.lost) == (0, False)


async def test_lag_is_measured_now_and_then_and_kept_where_it_cannot_be() -> None:
    broker, one = Broker(), ("curate.record-ingested", "record.ingested", "0")
    broker.behind = {one: 7}
    await broker.after(5)
    assert broker.watch.lag == {one: 7}
    broker.behind = {one: 9}
    await broker.after(LAG_SECONDS / 2)
    assert broker.watch.lag == {one: 7}
    broker.lag_error = KafkaConnectionError()
    await broker.after(LAG_SECONDS / 2)
    assert broker.watch.lag == {one: 7}
    broker.lag_error = None
    await broker.after(LAG_SECONDS)
    assert broker.watch.lag == {one: 9}
