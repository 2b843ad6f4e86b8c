"""project declare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling


@calling
def command(
    call: Call,
    spec: Annotated[Path, typer.Argument(help="The project's YAML.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Only check it; nothing changes.")] = False,
) -> None:
    """Check a project spec and put it in force; all that is wrong with it is told at once.

    Says how likely a verdict is on as many rows as the smallest version has, and what would make it likelier.
    """
    from tunewheel_cli.power_tables import power_lines
    from tunewheel_cli.spec_file import read_spec_file

    name, text = read_spec_file(spec)
    projects = call.client.projects if check else call.writer.projects
    answer = projects.declare(name, text, check=check)

    def tell() -> None:
        done = "checked" if check else "declared"
        print(f"{done} {answer.project}: {answer.criteria} criteria, base model {answer.base_model}")
        if answer.power is not None:
            print("\n".join(power_lines(answer.power)))

    call.show(answer, tell)
    for caution in answer.cautions:
        call.tell(f"caution: {caution}")
    for note in answer.notes:
        call.tell(f"note: {note}")
