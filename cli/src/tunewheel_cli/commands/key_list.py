"""key list."""

from __future__ import annotations

from tunewheel_cli.calling import Call, calling


@calling
def command(call: Call) -> None:
    """Show who has a key, and what each may do. No key is known to the wheel, only its hash."""
    from tunewheel_cli.texts import print_table

    found = call.client.keys.list()
    rows = [
        (one.name, one.roles, "all" if one.projects is None else one.projects, one.groups, one.keys)
        for one in found.keys
    ]
    call.show(found, lambda: print_table(("name", "roles", "projects", "groups", "keys"), rows))
