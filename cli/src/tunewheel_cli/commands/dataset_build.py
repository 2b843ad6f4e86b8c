"""dataset build."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, Request, Timeout, calling, settle


@calling
def command(
    call: Call,
    project: Project,
    wait: Annotated[
        bool, typer.Option(help="First wait until ingest has read all that was published so far.")
    ] = True,
    request: Request = None,
    timeout: Timeout = 120.0,
) -> None:
    """Ask for a new dataset version now, whatever the build policy says, and wait until curate has it.

    It holds everything that was published before the command.
    """
    accepted = call.writer.datasets.build(project, wait=wait, request=request)
    command = settle(call, project, accepted, timeout)
    call.show(
        command or accepted,
        f"asked for a dataset of {project}; follow it with `tunewheel watch --project {project}`",
    )
