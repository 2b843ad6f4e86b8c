"""run pause, resume, cancel: steer a training run."""

from __future__ import annotations

from typing import Annotated

import typer
from tunewheel_contracts.events.training import TrainAction

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Project, Reach, Request, reaching

RunId = Annotated[str, typer.Argument(help="As train.started names it.")]


@reaching
async def pause(reach: Reach, run_id: RunId, project: Project, request: Request = None) -> None:
    """Pause a run: it writes a checkpoint and frees the machine."""
    await _control(TrainAction.PAUSE, reach, run_id, project, request)


@reaching
async def resume(reach: Reach, run_id: RunId, project: Project, request: Request = None) -> None:
    """Let a paused run go on. One that was cancelled, or failed, is trained once more as it was asked for."""
    await _control(TrainAction.RESUME, reach, run_id, project, request)


@reaching
async def cancel(reach: Reach, run_id: RunId, project: Project, request: Request = None) -> None:
    """Cancel a run."""
    await _control(TrainAction.CANCEL, reach, run_id, project, request)


async def _control(action: TrainAction, reach: Reach, run_id: str, project: str, request: str | None) -> None:
    import uuid

    from tunewheel_cli.reading import require_project
    from tunewheel_cli.run_controls import control, train_again, unheard_of

    options = reach.client_options()
    await require_project(options, project)
    unknown = await unheard_of(run_id, options)
    name = request or str(uuid.uuid4())
    event = await control(project, run_id, action, name, options, reach.principal())
    again = action is TrainAction.RESUME and await train_again(run_id, options)
    if reach.as_json:
        print_json(
            {"project": project, "run_id": run_id, "action": action.value, "event_id": event.id,
             "known": not unknown, "trained_again": again}
        )  # fmt: skip
    else:
        print(f"{action.value} asked of {run_id}" + (", which had failed: it is trained again" * again))
        if unknown:
            print("no event names this run so far: is its id right? The command holds once it begins")
