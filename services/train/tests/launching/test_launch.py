from __future__ import annotations

from aiokafka import TopicPartition
from tunewheel_contracts.event import new_event
from tunewheel_runtime.jobs import Lease
from tunewheel_train.launching.launch import Outcome, Refused, launch_of, read_launch


def lease(offset: int) -> Lease:
    return Lease(TopicPartition("dataset.versioned", 0), offset)


async def test_an_event_at_its_place_is_one_launch_and_sent_once_more_another(bench):
    made = await bench()
    event = new_event(made.event, source="/t")
    assert launch_of(event, lease(7)) == launch_of(event, lease(7))
    assert launch_of(event, lease(8)).name != launch_of(event, lease(7)).name
    assert len(launch_of(event, lease(7)).name) <= 63


async def test_a_launch_is_read_as_it_was_put(bench):
    made = await bench()
    launch = launch_of(new_event(made.event, source="/t", correlation_id="turn"), lease(7))
    assert await read_launch(made.store, launch.name) is None
    await launch.put(made.store)
    await launch.put(made.store)
    assert await read_launch(made.store, launch.name) == launch


async def test_the_first_outcome_stays(bench):
    made = await bench()
    launch = launch_of(new_event(made.event, source="/t"), lease(7))
    first = Outcome(refused=Refused(field="manifest", reason="gone"))
    assert await launch.outcome(made.store) is None
    assert await launch.end(made.store, first) == first
    assert await launch.end(made.store, Outcome(refused=Refused(field="other", reason="x"))) == first
    assert await launch.outcome(made.store) == first
