"""context use."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling, named_project


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from tunewheel_client import contexts

    return [name for name in contexts.read().contexts if name.startswith(incomplete)]


@calling
def command(
    call: Call,
    name: Annotated[
        str, typer.Argument(help="As `tunewheel context list` names it.", autocompletion=_complete)
    ],
    default: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="The project that is meant where none is named.", callback=named_project
        ),
    ] = None,
) -> None:
    """Use a wheel from now on, in every command that names none."""
    from tunewheel_client import contexts

    chosen = contexts.use(name, project=default)
    in_project = f", project {chosen.project}" if chosen.project else ""
    call.show(
        {"name": name, "url": chosen.url, "project": chosen.project}, f"{name}: {chosen.url}{in_project}"
    )
