"""label answer."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling
from tunewheel_cli.commands.label_show import RequestId


@calling
def command(
    call: Call,
    request: RequestId,
    item: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
    project: Project,
    output: Annotated[
        str | None, typer.Argument(help="The answer: JSON where the task's answers are.", show_default=False)
    ] = None,
    out_of_scope: Annotated[
        bool, typer.Option("--out-of-scope", help="Nobody need answer it; nothing is published.")
    ] = False,
    reviewer: Annotated[str | None, typer.Option(help="Who answers, where identity is open.")] = None,
) -> None:
    """Answer a prompt. Once this returns, the answer is on the log; another one takes its place."""
    from tunewheel_cli.items import labels_so_far

    progress = call.client.labels.answer(
        project, request, item, output, out_of_scope=out_of_scope, reviewer=reviewer
    )
    call.show(progress, lambda: print(labels_so_far(progress)))
