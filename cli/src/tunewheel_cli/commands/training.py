"""train: pause, resume or cancel a run."""

from __future__ import annotations

from typing import Annotated

import typer
from tunewheel_contracts.events.training import TrainAction

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Project, Reach, Request, reaching


def register(app: typer.Typer) -> None:
    app.command()(train)


@reaching
async def train(
    reach: Reach,
    action: Annotated[TrainAction, typer.Argument(help="What the run shall do.")],
    run_id: Annotated[str, typer.Argument(help="As train.started names it.")],
    project: Project,
    request: Request = None,
) -> None:
    """Pause, resume or cancel a training run.

    A paused run has written a checkpoint and frees the machine. A run that was cancelled, or failed, can be
    resumed too: it is trained once more as it was asked for.
    """
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
