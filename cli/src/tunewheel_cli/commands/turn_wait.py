"""turn wait."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, Unfinished, calling
from tunewheel_cli.commands.turn_show import Turn, print_turn


@calling
def command(
    call: Call,
    project: Project,
    turn: Turn = "latest",
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait.", show_default="without end", min=0)
    ] = None,
) -> None:
    """Wait until a turn of the wheel has ended, and show what it led to."""
    from tunewheel_client import Away

    try:
        found = call.client.turns.wait(project, turn, timeout_seconds=timeout)
    except Away as error:
        if error.status is None and call.client.turns.show(project, turn).state != "ended":
            raise Unfinished(error.message) from error
        raise
    call.show(found, lambda: print_turn(found))
