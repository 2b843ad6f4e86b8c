"""model compare."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Model, Project, calling


@calling
def command(
    call: Call,
    first: Model,
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    project: Project,
) -> None:
    """Show what changed from one model to another: data, recipe, criteria, figures, what serves."""
    from tunewheel_cli.comparison import print_comparison

    found = call.client.models.compare(project, first, second)
    call.show(found, lambda: print_comparison(found))
