"""admin audit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, calling, named_project


class Form(StrEnum):
    """The form of an export."""

    JSONL = "jsonl"
    CSV = "csv"


@calling
def command(
    call: Call,
    only: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
    ] = None,
    principal: Annotated[str | None, typer.Option(help="Only commands of this person or program.")] = None,
    export: Annotated[
        Form | None, typer.Option(help="Print all commands in this form, instead of a table.")
    ] = None,
    limit: Limit = 50,
) -> None:
    """List each command with its principal, time, door and outcome."""
    from tunewheel_cli.texts import print_page

    if export is not None:
        print(call.client.audit.export(export.value, project=only, principal=principal), end="")
        return
    found = call.client.audit.list(project=only, principal=principal, limit=limit)
    print_page(
        call, found, "nobody ordered anything",
        ("at", "who", "project", "what", "on", "outcome", "door", "signed by", "why"),
        lambda one: (
            one.at, one.principal, one.project, f"{one.type} {one.action}".strip(), one.target, one.state,
            one.door, one.signed_by, one.reason,
        ),
        shorten=("why",),
    )  # fmt: skip
