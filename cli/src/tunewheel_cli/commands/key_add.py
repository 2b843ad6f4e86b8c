"""key add."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, InvalidOption, calling

Name = Annotated[str, typer.Argument(help="Who the key is for; it stands in events as who asked.")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="viewer, publisher, application, reviewer or operator; may be repeated."),
]
Projects = Annotated[
    list[str] | None, typer.Option("--project", "-p", help="Only in this project; may be repeated.")
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="What this group of the file may do; may be repeated."),
]


@calling
def command(
    call: Call, name: Name, roles: Roles = None, projects: Projects = None, groups: Groups = None
) -> None:
    """Make a key and print it, once: the wheel keeps its hash alone.

    Without --project the roles hold in every project. Services take it within seconds.
    """
    if not roles and not groups:
        raise InvalidOption("--role: say what the key may do; give one or more, or --group")
    made = call.writer.keys.add(name, roles=roles or (), projects=projects or (), groups=groups or ())
    call.show(made, lambda: print(made.key))
