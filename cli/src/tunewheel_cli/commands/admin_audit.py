"""admin audit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, calling, named_project
from tunewheel_cli.listing import print_page


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
    if export is not None:
        print(call.client.audit.export(export.value, project=only, principal=principal), end="")
        return
    found = call.client.audit.list(project=only, principal=principal, limit=limit)
    columns = {
        "at": "at", "who": "principal", "project": "project",
        "what": lambda one: f"{one.type} {one.action}".strip(), "on": "target", "outcome": "state",
        "door": "door", "signed by": "signed_by", "why": "reason",
    }  # fmt: skip
    print_page(call, found, "nobody ordered anything", columns, shorten=("why",))
