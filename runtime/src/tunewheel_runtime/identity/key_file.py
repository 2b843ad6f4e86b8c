"""Changes a file of API keys. A new key is returned once; the file holds only its hash."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from tunewheel_contracts.errors import FieldError, TunewheelError, first_complaint

from tunewheel_runtime.files import one_at_a_time, replace_file
from tunewheel_runtime.identity.keys import ApiKey, KeyFile, read_key_file, ring_of, sum_of
from tunewheel_runtime.identity.roles import Role

HEADER = (
    "# API keys: a hash for each, and what the key may do. `tunewheel key add`, `rotate` and `revoke`\n"
    "# change this file; services read it anew within seconds. A change keeps the comment at the top, no\n"
    "# other.\n"
)


PREFIX = "tw-"
"""The prefix of all keys, by which a key in a wrong place is recognised."""


class KeyRefused(FieldError):
    """A change of the file is refused. ``field``: ``name``, ``roles``, ``projects``, ``groups`` or
    ``file``."""


class KeyTaken(KeyRefused):
    """The name has a key already."""


class UnknownKey(KeyRefused):
    """Nobody is called so."""


class KeyFileUnwritable(TunewheelError):
    """The file of keys cannot be replaced."""


def new_key() -> str:
    """Return a new API key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def make(path: Path, name: str, key: str) -> None:
    """Create the file with ``key``, named ``name``, which has all roles in all projects. Raises OSError."""
    entry = ApiKey(sha256=(sum_of(key),), roles=tuple(Role))
    replace_file(path, (HEADER + _dump(KeyFile(keys={name: entry}), path)).encode())


def read(path: Path) -> KeyFile:
    """Return what the file holds.

    Raises:
        KeyRefused: there is no such file.
        InvalidKeys: the file cannot be read, or is invalid.
    """
    if not path.exists():
        raise KeyRefused(
            "file", f"there is no {path}; `tunewheel up` makes the wheel's own, `tunewheel key add` another"
        )
    file = read_key_file(path)
    ring_of(file, path)
    return file


def add(
    path: Path, name: str, *, roles: Sequence[str], projects: Sequence[str], groups: Sequence[str]
) -> str:
    """Add a key and return it. A missing file is created. Empty ``projects``: all projects.

    Raises:
        KeyRefused: the name is taken, or a value is invalid.
        InvalidKeys, KeyFileUnwritable: the file cannot be used.
    """
    key = new_key()
    said: dict[str, Any] = {"sha256": sum_of(key)}
    said |= {"roles": roles} if roles else {}
    said |= {"projects": projects} if projects else {}
    said |= {"groups": groups} if groups else {}

    def edit(file: KeyFile) -> KeyFile:
        if name in file.keys:
            raise KeyTaken("name", f"{name!r} has a key already; `tunewheel key rotate` changes it")
        for group in groups:
            if group not in file.groups:
                raise KeyRefused("groups", f"{group!r} is no group of {path}; {_choose(file.groups)}")
        try:
            return _with(file, name, ApiKey.model_validate(said))
        except ValidationError as error:
            field, reason = first_complaint(error)
            first, _, _ = field.partition(".")
            known = ("roles", "projects", "groups")
            raise KeyRefused(first if first in known else "name", reason) from error

    _change(path, edit, make=True)
    return key


def complete(path: Path, name: str) -> None:
    """Give ``name`` the role expert where it has all others: an earlier release made its key, and did not
    know the role. Raises InvalidKeys, KeyFileUnwritable."""
    entry = read(path).keys.get(name)
    if entry is not None and set(Role) - set(entry.roles) == {Role.EXPERT}:
        whole = entry.model_copy(update={"roles": tuple(Role)})
        _change(path, lambda file: _with(file, name, whole))


def rotate(path: Path, name: str, *, keep_old: bool) -> str:
    """Give ``name`` a new key and return it. ``keep_old``: the previous key stays valid too.

    Raises:
        UnknownKey: nobody is called so.
        InvalidKeys, KeyFileUnwritable
    """
    key = new_key()

    def edit(file: KeyFile) -> KeyFile:
        entry = _entry(file, name, path)
        old = entry.sha256[:1] if keep_old else ()
        return _with(file, name, entry.model_copy(update={"sha256": (sum_of(key), *old)}))

    _change(path, edit)
    return key


def revoke(path: Path, name: str, *, old_only: bool) -> None:
    """Remove ``name`` from the file. ``old_only``: remove only the keys before its newest one.

    Raises:
        UnknownKey: nobody is called so.
        InvalidKeys, KeyFileUnwritable
    """

    def edit(file: KeyFile) -> KeyFile:
        entry = _entry(file, name, path)
        if old_only:
            return _with(file, name, entry.model_copy(update={"sha256": entry.sha256[:1]}))
        left = {other: key for other, key in file.keys.items() if other != name}
        return file.model_copy(update={"keys": left})

    _change(path, edit)


def _dump(file: KeyFile, path: Path) -> str:
    """Return the text of ``file``: JSON if ``path`` ends in .json, else YAML."""
    said = file.model_dump(mode="json", exclude_unset=True)
    if path.suffix == ".json":
        return json.dumps(said, indent=2) + "\n"
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _change(path: Path, edit: Callable[[KeyFile], KeyFile], *, make: bool = False) -> None:
    """Replace the file by the result of ``edit``. Only one command can do so at a time. A link stays a
    link."""
    path = path.resolve()
    try:
        with one_at_a_time(path.parent):
            is_new = make and not path.exists()
            changed = edit(KeyFile() if is_new else read(path))
            # model_copy does not validate, and an invalid file would stop services from reading it
            changed = KeyFile.model_validate(changed.model_dump(mode="json", exclude_unset=True))
            ring_of(changed, path)
            header = HEADER if is_new else _header(path.read_text("utf-8"))
            text = ("" if path.suffix == ".json" else header) + _dump(changed, path)
            replace_file(path, text.encode())
    except ValidationError as error:
        raise KeyRefused("name", first_complaint(error)[1]) from error
    except OSError as error:
        raise KeyFileUnwritable(f"file: {path} cannot be written: {error}") from error


def _with(file: KeyFile, name: str, key: ApiKey) -> KeyFile:
    return file.model_copy(update={"keys": {**file.keys, name: key}})


def _entry(file: KeyFile, name: str, path: Path) -> ApiKey:
    if name not in file.keys:
        raise UnknownKey("name", f"nobody is called {name!r} in {path}; {_choose(file.keys)}")
    return file.keys[name]


def _choose(names: Iterable[str]) -> str:
    return f"choose from {', '.join(names)}" if names else "it names nobody"


def _header(text: str) -> str:
    """Return the comment at the start of a file."""
    lines = text.splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])
