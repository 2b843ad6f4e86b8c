"""dead-letter list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, calling, named_project


@calling
def command(
    call: Call,
    only: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Only what this topic brought.")] = None,
    limit: Limit = 50,
) -> None:
    """Show what services refused, one message after the other, with the field and the reason.

    Nothing is read from there again: mend it and publish it anew.
    """
    from tunewheel_cli.texts import flat

    found = call.client.dead_letters.list(project=only, topic=topic, limit=limit)

    def tell() -> None:
        for letter in found.items:
            verb = "crashed on" if letter.kind == "crashed" else "refused"
            print(f"{letter.topic}[{letter.partition}]@{letter.offset}  {letter.service} {verb} it")
            print(f"  {flat(letter.field)} {flat(letter.reason)}\n  {letter.message!r}")
        if not found.items:
            print("nothing was refused")

    call.show(found, tell)
