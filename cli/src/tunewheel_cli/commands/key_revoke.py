"""key revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling
from tunewheel_cli.commands.key_add import Name


@calling
def command(
    call: Call,
    name: Name,
    old: Annotated[
        bool, typer.Option("--old", help="Only the keys before the newest, after rotate --keep-old.")
    ] = False,
) -> None:
    """Take NAME's key away; within seconds no service knows it."""
    call.writer.keys.revoke(name, old_only=old)
    call.show(
        {"name": name, "revoked": "old" if old else "all"},
        f"revoked {'the old keys' if old else 'the key'} of {name}",
    )
