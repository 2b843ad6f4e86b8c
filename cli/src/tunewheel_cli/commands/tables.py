"""Tables of ``admin acls`` and of the file of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunewheel_cli.acls import PRINCIPALS, Acl

if TYPE_CHECKING:
    from tunewheel_runtime.identity.keys import ApiKey


def print_acls(acls: Sequence[Acl], principals: Mapping[str, str]) -> None:
    """Print each principal with one line per topic or group. ``principals``: Kafka's names by ours."""
    console = Console(highlight=False)
    for name, called in principals.items():
        table = Table(box=None, pad_edge=False, show_header=False)
        for acl in acls:
            if acl.name == name:
                table.add_row(f"  {acl.kind}", acl.resource, ", ".join(acl.operations))
        console.print(f"[bold]{escape(called)}[/]  {escape(PRINCIPALS[name])}")
        console.print(table)


def print_keys(keys: Mapping[str, ApiKey]) -> None:
    """Print one line per key."""
    table = Table("name", "roles", "projects", "groups", "keys", box=None, pad_edge=False)
    for name, entry in keys.items():
        roles = entry.roles if "roles" in entry.model_fields_set or not entry.groups else ()
        projects = "all" if entry.projects is None else ", ".join(entry.projects)
        cells = (name, ", ".join(roles), projects, ", ".join(entry.groups), str(len(entry.sha256)))
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)
