"""The commands about API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, InvalidOption, calling


@calling
def list_(call: Call) -> None:
    """Show who has a key, and what each may do. No key is known to the wheel, only its hash."""
    from tunewheel_cli.texts import print_table

    found = call.client.keys.list()
    rows = [
        (one.name, one.roles, "all" if one.projects is None else one.projects, one.groups, one.keys)
        for one in found.keys
    ]
    call.show(found, lambda: print_table(("name", "roles", "projects", "groups", "keys"), rows))


Name = Annotated[str, typer.Argument(help="Who the key is for; it stands in events as who asked.")]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="viewer, publisher, expert, application, reviewer or operator; may be repeated."
    ),
]
Projects = Annotated[
    list[str] | None, typer.Option("--project", "-p", help="Only in this project; may be repeated.")
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="What this group of the file may do; may be repeated."),
]


@calling
def add(
    call: Call, name: Name, roles: Roles = None, projects: Projects = None, groups: Groups = None
) -> None:
    """Make a key and print it, once: the wheel keeps its hash alone.

    Without --project the roles hold in every project. Services take it within seconds.
    """
    if not roles and not groups:
        raise InvalidOption("--role: say what the key may do; give one or more, or --group")
    made = call.writer.keys.add(name, roles=roles or (), projects=projects or (), groups=groups or ())
    call.show(made, lambda: print(made.key))


@calling
def rotate(
    call: Call,
    name: Name,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="The key before holds too, until `key revoke --old`.")
    ] = False,
) -> None:
    """Give NAME a new key and print it, once; the old one ends within seconds."""
    made = call.writer.keys.rotate(name, keep_old=keep_old)
    call.show(made, lambda: print(made.key))


@calling
def revoke(
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


@calling
def show(call: Call) -> None:
    """Print the key that commands send to this wheel, for scripts."""
    from tunewheel_client import NoAddress
    from tunewheel_local.places import Var
    from tunewheel_local.wheel_secrets import local_key

    try:
        key = call.target.context.key
    except NoAddress:
        key = local_key(Var.at(call.var))  # of a wheel that does not run
    if key is None:
        raise InvalidOption(
            "--context: there is no key here; `tunewheel login URL` keeps one, `tunewheel up` makes its key"
        )
    call.show({"key": key.get_secret_value()}, key.get_secret_value())
