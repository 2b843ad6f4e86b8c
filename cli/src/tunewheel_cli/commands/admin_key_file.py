"""admin key-file: changes a file of API keys where it lies, without a wheel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tunewheel_local.connection import InvalidOption
from tunewheel_local.run_state import living
from tunewheel_local.wheel_secrets import LOCAL, rotate_local_key

from tunewheel_cli.commands.key import Groups, Projects, Roles
from tunewheel_cli.reach import Reach, on_folder


class Action(StrEnum):
    """What to do with the file."""

    ADD = "add"
    LIST = "list"
    ROTATE = "rotate"
    REVOKE = "revoke"


@on_folder
def command(
    reach: Reach,
    action: Annotated[Action, typer.Argument(help="add, list, rotate or revoke.", show_default=False)],
    name: Annotated[
        str, typer.Argument(help="Who the key is for; it stands in events as who asked.", show_default=False)
    ] = "",
    roles: Roles = None,
    projects: Projects = None,
    groups: Groups = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="rotate: the key before holds too, until `revoke --old`.")
    ] = False,
    old: Annotated[
        bool, typer.Option("--old", help="revoke: only the keys before the newest, after rotate --keep-old.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", envvar="TUNEWHEEL_API_KEYS_FILE", help="File of keys.", show_default="the wheel's own"
        ),
    ] = None,
) -> None:
    """Make, list, renew or take away API keys in a file, before there is a wheel, or where none may write it.

    A new key is printed once: the file keeps its hash alone. Services take a change within seconds.
    """
    from tunewheel_runtime.identity import key_file

    path = file or reach.var.keys_file
    if action is Action.LIST:
        _list(reach, path)
        return
    if not path.exists() and file is None:  # only `up` creates the wheel's own file, with the wheel's key
        raise InvalidOption(
            f"--file: no wheel was started on {reach.var.root}, so it has no keys yet; run `tunewheel up` "
            "first, or name a file"
        )
    if not name:
        raise InvalidOption("NAME: say whose key is meant")
    if action is Action.ADD and not roles and not groups:
        raise InvalidOption("--role: say what the key may do; give one or more, or --group")
    is_local = name == LOCAL and path.resolve() == reach.var.keys_file.resolve()
    with _as_options():
        if action is Action.REVOKE:
            if is_local and not old:
                reason = "is the wheel's own key, which it cannot run without; rotate it"
                raise InvalidOption(f"NAME: {name!r} {reason}")
            key_file.revoke(path, name, old_only=old)
            told = {"name": name, "revoked": "old" if old else "all", "file": path}
            reach.show(told, f"revoked {'the old keys' if old else 'the key'} of {name} in {path}")
            return
        if action is Action.ADD:
            new = key_file.add(path, name, roles=roles or (), projects=projects or (), groups=groups or ())
        elif is_local:
            new = _rotate_local(reach, keep_old=keep_old)
        else:
            new = key_file.rotate(path, name, keep_old=keep_old)
    reach.show({"name": name, "key": new, "file": path}, new)


def _list(reach: Reach, path: Path) -> None:
    from tunewheel_runtime.identity import key_file

    from tunewheel_cli.texts import print_table

    with _as_options():
        keys = key_file.read(path).keys
    entries = [
        {"name": name, **one.model_dump(mode="json", exclude={"sha256"}), "keys": len(one.sha256)}
        for name, one in keys.items()
    ]
    rows = [
        (name, one.roles, "all" if one.projects is None else one.projects, one.groups, len(one.sha256))
        for name, one in keys.items()
    ]
    reach.show(
        {"file": path, "keys": entries},
        lambda: print_table(("name", "roles", "projects", "groups", "keys"), rows),
    )


def _rotate_local(reach: Reach, *, keep_old: bool) -> str:
    if living(reach.var.run_file) is not None:
        raise InvalidOption(
            f"NAME: the wheel that runs here uses the key {LOCAL!r}; stop it with `tunewheel down` first"
        )
    return rotate_local_key(reach.var, keep_old=keep_old)


@contextmanager
def _as_options() -> Iterator[None]:
    """Name the option of a value that the file of keys does not take."""
    from tunewheel_runtime.identity.key_file import KeyRefused

    options = {"roles": "--role", "projects": "--project", "groups": "--group", "file": "--file"}
    try:
        yield
    except KeyRefused as error:
        raise InvalidOption(f"{options.get(error.field, 'NAME')}: {error.reason}") from error
