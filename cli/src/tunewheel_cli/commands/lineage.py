"""lineage."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling


@calling
def command(
    call: Call,
    name: Annotated[
        str,
        typer.Argument(
            help="A source, record, dataset, run, model, scorecard, evaluation, review, erasure or event.",
            show_default=False,
        ),
    ],
    project: Project,
    records: Annotated[int, typer.Option(help="Name at most so many records.", min=0, max=10_000)] = 100,
) -> None:
    """Show what something came from, down to the source records, and what came of it."""
    from tunewheel_local.places import Var
    from tunewheel_local.wheel_secrets import pseudonym_secret

    from tunewheel_cli.lineage import ask_lineage, print_lineage

    secret = pseudonym_secret(Var.at(call.var))
    found = ask_lineage(call.client, project, name, records=records, secret=secret)
    call.show(found, lambda: print_lineage(found))
