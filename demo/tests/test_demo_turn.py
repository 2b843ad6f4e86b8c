"""What the demo knows of a model's rollout."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_client import Gap
from tunewheel_contracts.api.events import CloudEvent
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.topics import DATASET_VERSIONED, PROJECT_DECLARED
from tunewheel_demo.feed import EventFeed, EventsMissed
from tunewheel_demo.gauge import Stopwatch
from tunewheel_demo.screen import Screen
from tunewheel_demo.turn import TurnStopped, TurnWatcher
from tunewheel_testing.story import Story


def watcher_of(events: list[Any]) -> TurnWatcher:
    feed, screen, client = EventFeed(), Screen(quiet=True), None
    for event in events:
        feed.take(event)
    return TurnWatcher(feed, screen, Stopwatch(), "desk", client)  # type: ignore[arg-type]


def stages_of(model_id: str, events: list[Any]) -> list[Stage]:
    return watcher_of(events).stages_of(model_id)


@pytest.mark.parametrize(("field", "stops"), [("(evaluation)", True), ("adapter", True), (None, False)])
async def test_a_model_that_could_not_be_measured_stops_the_demo_and_a_refused_one_does_not(
    field: str | None, stops: bool
) -> None:
    story = Story()
    trained = story.train("completed", "ds-1")
    failed = story.say("eval.failed", run_id=trained.data.run_id, reasons=["gave up"], field=field)
    judged = watcher_of(story.events).judged("evaluate 2", trained)
    if stops:
        with pytest.raises(TurnStopped, match="gave up"):
            await judged
    else:
        assert await judged is failed


@pytest.mark.parametrize("earlier", [0, 3])
def test_a_models_stages_have_the_registrys_order_whatever_its_clocks_say(earlier: int) -> None:
    story = Story()
    moves = [Stage.EVALUATED, Stage.CANARY]
    for generation, stage in enumerate(moves, start=1):
        story.say("model.promoted", model_id="m-1", to_stage=stage, generation=generation, cause=str(stage))
    story.say("model.promoted", model_id="m-2", to_stage=Stage.PRODUCTION, generation=9, cause="another")
    story.now = story.now.replace(hour=story.now.hour - earlier)
    story.say("model.rolledback", model_id="m-1", generation=3)
    assert stages_of("m-1", [*reversed(story.events)]) == [*moves, Stage.ROLLED_BACK]
    assert stages_of("m-3", story.events) == []


async def test_the_feed_takes_what_the_console_tells_and_stops_at_a_gap() -> None:
    story = Story()
    declared = story.say("project.declared")
    told: list[Any] = [CloudEvent.of(declared), CloudEvent.of(declared), Gap(after=None)]

    class Events:
        def follow(self, **_: Any) -> Any:
            return self

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def __aiter__(self) -> Any:
            for one in told:
                yield one

    class Wheel:
        events = Events()

    feed, seen = EventFeed(), list[Any]()
    feed.observe(seen.append)
    await feed.follow(Wheel())  # type: ignore[arg-type]
    assert [event.data for event in feed.of(PROJECT_DECLARED)] == [declared.data]
    assert len(seen) == 2
    assert (await feed.first(PROJECT_DECLARED, patience=1)).id == declared.id
    with pytest.raises(EventsMissed):
        await feed.first(DATASET_VERSIONED, patience=60)
