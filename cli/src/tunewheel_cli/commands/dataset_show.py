"""dataset show."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Dataset, Project, calling


@calling
def command(
    call: Call,
    dataset_id: Dataset,
    project: Project,
    power: Annotated[bool, typer.Option(help="Say what the criteria can show on its held-out rows.")] = True,
) -> None:
    """Show what a version holds, and what became of every record on the way to it."""
    from tunewheel_cli.datasets.tables import print_version
    from tunewheel_cli.power_tables import power_lines

    found = call.client.datasets.show(project, dataset_id, power=power)

    def tell() -> None:
        print_version(found)
        if found.power is not None:
            print("\n".join(power_lines(found.power)))

    call.show(found, tell)
