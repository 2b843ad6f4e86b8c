"""dataset diff."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Dataset, Project, calling


@calling
def command(
    call: Call,
    before: Dataset,
    after: Annotated[str, typer.Argument(help="The version to compare it with.", show_default=False)],
    project: Project,
) -> None:
    """Show what changed from one version to another: examples, answers, labels, stages, spec."""
    from tunewheel_cli.datasets.tables import print_difference

    found = call.client.datasets.diff(project, before, after)
    call.show(found, lambda: print_difference(found))
