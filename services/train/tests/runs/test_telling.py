from __future__ import annotations

from tunewheel_contracts.event import Event
from tunewheel_contracts.events.training import TrainProgressed
from tunewheel_train.progress import Alive, Progressed
from tunewheel_train.runs.runs import Run
from tunewheel_train.runs.telling import Teller

STEPS = 20


def after(step: int) -> Progressed:
    return Progressed(
        step=step, total_steps=STEPS, epoch=1.0, loss=1.0, learning_rate=1e-3, grad_norm=1.0,
        tokens_per_second=1.0, eta_seconds=1.0,
    )  # fmt: skip


async def told_of(run: Run, *, seconds_per_step: float, progress_seconds: float) -> list[int]:
    """The steps that were published of a run whose steps take so long."""
    told: list[int] = []
    now = 0.0

    async def publish(event: Event) -> None:
        assert isinstance(event, TrainProgressed)
        told.append(event.step)

    teller = Teller(run, publish, progress_seconds, lambda: now)
    for step in range(1, STEPS + 1):
        await teller.tell(after(step))
        assert teller.step == step  # what is not told is known all the same
        now += seconds_per_step
    return told


async def test_steps_are_told_once_an_interval_and_the_last_always(a_run: Run):
    assert await told_of(a_run, seconds_per_step=0.25, progress_seconds=1.0) == [1, 5, 9, 13, 17, 20]
    assert await told_of(a_run, seconds_per_step=0.25, progress_seconds=1e9) == [1, 20]


async def test_steps_that_take_longer_than_the_interval_are_all_told(a_run: Run):
    assert await told_of(a_run, seconds_per_step=2.0, progress_seconds=1.0) == list(range(1, STEPS + 1))


async def test_in_a_slow_step_the_one_before_is_told_again_twice_a_minute(a_run: Run):
    told: list[tuple[int, float | None]] = []
    now = 0.0

    async def publish(event: Event) -> None:
        assert isinstance(event, TrainProgressed)
        told.append((event.step, event.since_step_seconds))

    teller = Teller(a_run, publish, 1.0, lambda: now)
    await teller.tell(Alive())  # nothing to tell of yet
    await teller.tell(after(1))
    for _ in range(9):
        now += 10.0
        await teller.tell(Alive())
    await teller.tell(after(2))
    assert told == [(1, None), (1, 30.0), (1, 60.0), (1, 90.0), (2, None)]
