from __future__ import annotations

import asyncio

from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_train.runs.controls import Controls


def command(action: TrainAction, run_id: str = "run-1", project: str = "p"):
    data = TrainControl(project=project, run_id=run_id, action=action, request="r")
    return new_event(data, source="/test")


async def test_the_latest_command_of_a_run_counts():
    controls = Controls()
    assert controls.latest("p", "run-1") is TrainAction.RESUME
    controls.apply(command(TrainAction.PAUSE))
    controls.apply(command(TrainAction.CANCEL))
    controls.apply(command(TrainAction.RESUME, "run-2"))
    assert controls.latest("p", "run-1") is TrainAction.CANCEL
    assert controls.latest("p", "run-2") is TrainAction.RESUME


def test_a_command_in_another_project_is_not_for_this_run():
    """Who may send it there may be nobody here."""
    controls = Controls()
    controls.apply(command(TrainAction.CANCEL, project="other"))
    assert controls.latest("p", "run-1") is TrainAction.RESUME
    assert not controls.is_resumed("p", "run-1")


async def test_a_waiter_wakes_for_its_own_run_only():
    controls = Controls()
    waiting = asyncio.create_task(controls.wait("p", "run-1", lambda action: action is TrainAction.CANCEL))
    await asyncio.sleep(0)
    controls.apply(command(TrainAction.CANCEL, "run-2"))
    controls.apply(command(TrainAction.PAUSE))
    await asyncio.sleep(0)
    assert not waiting.done()
    controls.apply(command(TrainAction.CANCEL))
    assert await asyncio.wait_for(waiting, 10) is TrainAction.CANCEL
