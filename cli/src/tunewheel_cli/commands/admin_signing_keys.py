"""admin signing-keys: the keys by which services sign the commands that they publish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.reach import Reach, reaching


class Action(StrEnum):
    """What to do with the file of public keys."""

    ADD = "add"
    RETIRE = "retire"
    LIST = "list"


@reaching
def signing_keys(
    reach: Reach,
    action: Annotated[Action, typer.Argument(help="add, retire or list.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Argument(help="add: the service; retire: the key's id, as list tells it.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", envvar="TUNEWHEEL_SIGNING_KEYS_FILE", help="File of public keys.",
            show_default="that of the wheel on --var",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Make a key by which a service signs its commands, and print it, once; or mark one as no longer used.

    The file keeps public keys alone. What a key signed before it was retired counts for ever, so a key stays
    in the file; what it signs afterwards is refused. Retire a key once its service runs with the new one.
    """
    from tunewheel_runtime.files import one_at_a_time
    from tunewheel_runtime.identity.command_keys import add_key, read_key_set, retire_key

    path = file or reach.var.identity / "signing-keys.json"
    if action is Action.LIST:
        keys = read_key_set(path).keys
        told = [{"kid": key.kid, "service": key.service, "retired": key.retired} for key in keys]
        lines = [
            f"{key.kid}  {key.service}{f'  retired {key.retired:%Y-%m-%d}' if key.retired else ''}"
            for key in keys
        ]
        reach.show({"file": path, "keys": told}, "\n".join(lines) or "there is no key")
        return
    if name is None:
        raise InvalidOption(f"NAME: say which {'service' if action is Action.ADD else 'key'}")
    ends = _ends(reach.client_options()) if action is Action.RETIRE else None
    with one_at_a_time(path.parent):
        if action is Action.ADD:
            private = add_key(path, name)
            reach.show({"service": name, "key": private, "file": path}, private)
        else:
            retire_key(path, name, ends)
            reach.show(
                {"retired": name, "file": path}, f"retired {name}; what it signed until now still counts"
            )


def _ends(options: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return where each partition of each topic of commands ends."""
    from tunewheel_contracts.topics import TOPICS
    from tunewheel_runtime.log import ends

    found: dict[str, dict[str, int]] = {}
    spans = asyncio.run(ends(options, [topic.name for topic in TOPICS if topic.is_signed]))
    for (topic, partition), span in spans.items():
        found.setdefault(topic, {})[str(partition)] = span.end
    return found
