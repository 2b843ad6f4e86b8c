"""key rotate."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling
from tunewheel_cli.commands.key_add import Name


@calling
def command(
    call: Call,
    name: Name,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="The key before holds too, until `key revoke --old`.")
    ] = False,
) -> None:
    """Give NAME a new key and print it, once; the old one ends within seconds."""
    made = call.writer.keys.rotate(name, keep_old=keep_old)
    call.show(made, lambda: print(made.key))
