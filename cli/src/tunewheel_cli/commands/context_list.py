"""context list."""

from __future__ import annotations

from tunewheel_cli.calling import Call, calling


@calling
def command(call: Call) -> None:
    """List the wheels that you logged in to; * is the one in use."""
    from tunewheel_client import contexts

    from tunewheel_cli.texts import print_table

    found = contexts.read()
    rows = [
        ("*" if name == found.current else "", name, one.url, one.name, one.project)
        for name, one in found.contexts.items()
    ]
    columns = ("", "context", "url", "as", "project")
    value = [
        {"name": name, "url": url, "as": who, "project": project, "in_use": bool(mark)}
        for mark, name, url, who, project in rows
    ]
    call.show(
        value, lambda: print_table(columns, rows) if rows else print("no context; run `tunewheel login URL`")
    )
