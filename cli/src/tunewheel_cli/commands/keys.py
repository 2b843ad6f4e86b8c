"""key add, list, rotate, revoke, show: the file of API keys, and the wheel's own key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_runtime.identity.keys import ApiKey

File = Annotated[
    Path | None,
    typer.Option(
        "--file", envvar="TUNEWHEEL_API_KEYS_FILE", help="File of keys.", show_default="the wheel's own"
    ),
]
Name = Annotated[str, typer.Argument(help="Who the key is for; it stands in events as who asked.")]


@reaching
def add(
    reach: Reach,
    name: Name,
    role: Annotated[
        list[str] | None,
        typer.Option(help="viewer, publisher, application, reviewer or operator; may be repeated."),
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option("--project", "-p", help="Only in this project; may be repeated.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="What this group of the file may do; may be repeated.")
    ] = None,
    file: File = None,
) -> None:
    """Make a key and print it, once: the file keeps its hash alone.

    Without --project the roles hold in every project. Services take it within seconds.
    """
    from tunewheel_runtime.identity import key_file

    if not role and not group:
        raise InvalidOption("--role: say what the key may do; give one or more, or --group")
    path = _own_or(file, reach)
    with _as_options():
        new = key_file.add(path, name, roles=role or (), projects=project or (), groups=group or ())
    reach.show({"name": name, "key": new, "file": path}, new)


@reaching
def list_(reach: Reach, file: File = None) -> None:
    """Show who has a key, and what each may do. No key is known here, only its hash."""
    from tunewheel_runtime.identity import key_file

    from tunewheel_cli.commands.tables import print_keys

    path = file or reach.var.keys_file
    with _as_options():
        keys = key_file.read(path).keys
    entries = [_as_json(name, entry) for name, entry in keys.items()]
    reach.show({"file": path, "keys": entries}, lambda: print_keys(keys))


@reaching
def rotate(
    reach: Reach,
    name: Name,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="The key before holds too, until `revoke --old`.")
    ] = False,
    file: File = None,
) -> None:
    """Give NAME a new key and print it, once; the old one ends within seconds."""
    from tunewheel_local import wheel_secrets
    from tunewheel_local.run_state import living
    from tunewheel_runtime.identity import key_file

    path = _own_or(file, reach)
    if not _is_local(path, name, reach):
        with _as_options():
            new = key_file.rotate(path, name, keep_old=keep_old)
    elif living(reach.var.run_file) is None:
        new = wheel_secrets.rotate_local_key(reach.var, keep_old=keep_old)
    else:
        raise InvalidOption(
            f"NAME: the wheel that runs here uses the key {name!r}; stop it with `tunewheel down` first"
        )
    reach.show({"name": name, "key": new, "file": path}, new)


@reaching
def revoke(
    reach: Reach,
    name: Name,
    old: Annotated[
        bool, typer.Option("--old", help="Only the keys before the newest, after rotate --keep-old.")
    ] = False,
    file: File = None,
) -> None:
    """Take NAME's key away; within seconds no service knows it."""
    from tunewheel_runtime.identity import key_file

    path = _own_or(file, reach)
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
