"""The commands about the wheels that somebody logged in to."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling, named_project


@calling
def list_(call: Call) -> None:
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


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from tunewheel_client import contexts

    return [name for name in contexts.read().contexts if name.startswith(incomplete)]


@calling
def use(
    call: Call,
    name: Annotated[
        str, typer.Argument(help="As `tunewheel context list` names it.", autocompletion=_complete)
    ],
    default: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="The project that is meant where none is named.", callback=named_project
        ),
    ] = None,
) -> None:
    """Use a wheel from now on, in every command that names none."""
    from tunewheel_client import contexts

    chosen = contexts.use(name, project=default)
    in_project = f", project {chosen.project}" if chosen.project else ""
    call.show(
        {"name": name, "url": chosen.url, "project": chosen.project}, f"{name}: {chosen.url}{in_project}"
    )


@calling
def show(call: Call) -> None:
    """Show which wheel is meant here and now, and as whom you are known there. No key is shown."""
    from tunewheel_cli.texts import print_facts

    target = call.target
    found = target.context
    value = {
        "name": target.name, "url": found.url, "as": found.name, "project": found.project,
        "addresses": found.addresses.model_dump(),
        "login": "tokens" if found.tokens else "key" if found.key else None,
    }  # fmt: skip
    facts = [(name, one) for name, one in value.items() if name != "addresses"]
    call.show(value, lambda: print_facts([*facts, *value["addresses"].items()]))
