"""admin key-file: changes a file of API keys where it lies, without a wheel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.commands.key import Groups, Projects, Roles
from tunewheel_cli.reach import Reach, on_folder

if TYPE_CHECKING:
    from tunewheel_runtime.identity.keys import ApiKey


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
    if action is Action.LIST:
        _list(reach, file or reach.var.keys_file)
        return
    path = _own_or(file, reach)
    if not name:
        raise InvalidOption("NAME: say whose key is meant")
    if action is Action.ADD and not roles and not groups:
        raise InvalidOption("--role: say what the key may do; give one or more, or --group")
    if action is Action.REVOKE:
        _revoke(reach, path, name, old=old)
        return
    if action is Action.ROTATE:
        new = _rotate(reach, path, name, keep_old=keep_old)
    else:
        from tunewheel_runtime.identity import key_file

        with _as_options():
            new = key_file.add(path, name, roles=roles or (), projects=projects or (), groups=groups or ())
    reach.show({"name": name, "key": new, "file": path}, new)


def _list(reach: Reach, path: Path) -> None:
    from tunewheel_runtime.identity import key_file

    from tunewheel_cli.texts import print_table

    with _as_options():
        keys = key_file.read(path).keys
    entries = [_as_json(name, entry) for name, entry in keys.items()]
    rows = [
        (name, one.roles, "all" if one.projects is None else one.projects, one.groups, len(one.sha256))
        for name, one in keys.items()
    ]
    reach.show(
        {"file": path, "keys": entries},
        lambda: print_table(("name", "roles", "projects", "groups", "keys"), rows),
    )


def _rotate(reach: Reach, path: Path, name: str, *, keep_old: bool) -> str:
    from tunewheel_local import wheel_secrets
    from tunewheel_local.run_state import living
    from tunewheel_runtime.identity import key_file

    if not _is_local(path, name, reach):
        with _as_options():
            return key_file.rotate(path, name, keep_old=keep_old)
    if living(reach.var.run_file) is None:
        return wheel_secrets.rotate_local_key(reach.var, keep_old=keep_old)
    raise InvalidOption(
        f"NAME: the wheel that runs here uses the key {name!r}; stop it with `tunewheel down` first"
    )


def _revoke(reach: Reach, path: Path, name: str, *, old: bool) -> None:
    from tunewheel_runtime.identity import key_file

    if _is_local(path, name, reach) and not old:
        raise InvalidOption(f"NAME: {name!r} is the wheel's own key, which it cannot run without; rotate it")
    with _as_options():
        key_file.revoke(path, name, old_only=old)
    reach.show(
        {"name": name, "revoked": "old" if old else "all", "file": path},
        f"revoked {'the old keys' if old else 'the key'} of {name} in {path}",
    )


@contextmanager
def _as_options() -> Iterator[None]:
    """Name the option of a value that the file of keys does not take."""
    from tunewheel_runtime.identity.key_file import KeyRefused

    options = {"roles": "--role", "projects": "--project", "groups": "--group", "file": "--file"}
    try:
        yield
    except KeyRefused as error:
        raise InvalidOption(f"{options.get(error.field, 'NAME')}: {error.reason}") from error


def _own_or(file: Path | None, reach: Reach) -> Path:
    """Return the file to change. Only ``up`` creates the wheel's own file, together with the wheel's key.

    Raises:
        InvalidOption: the wheel has no file yet.
    """
    own = reach.var.keys_file
    if file is None and not own.exists():
        raise InvalidOption(
            f"--file: no wheel was started on {reach.var.root}, so it has no keys yet; run `tunewheel up` "
            "first, or name a file"
        )
    return file or own


def _is_local(path: Path, name: str, reach: Reach) -> bool:
    """Return whether this is the wheel's own key."""
    from tunewheel_local.wheel_secrets import LOCAL

    return name == LOCAL and path.resolve() == reach.var.keys_file.resolve()


def _as_json(name: str, entry: ApiKey) -> dict[str, object]:
    return {"name": name, **entry.model_dump(mode="json", exclude={"sha256"}), "keys": len(entry.sha256)}
