"""project remove."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Timeout, calling, completing, named_project, settle


@calling
def command(
    call: Call,
    name: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT", help="The project's name.", callback=named_project,
            autocompletion=completing("projects", "project"),
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Timeout = 30.0,
) -> None:  # fmt: skip
    """Take back a project's declaration: nothing of it is built, trained, watched or served any more.

    What was published, built and trained stays, and `tunewheel project declare` brings it back. To erase what
    was published about a person, use `tunewheel forget` first.
    """
    projects = call.writer.projects
    if not yes and not call.as_json:
        typer.confirm(f"Stop building, training, watching and serving {name}?", abort=True)
    settle(call, name, projects.remove(name), timeout)
    call.show(
        {"project": name, "removed": True}, f"removed {name}; `tunewheel project declare` brings it back"
    )
