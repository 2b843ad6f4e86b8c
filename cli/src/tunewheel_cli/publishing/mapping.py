"""``--map``: gives keys and columns of a file the names of fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunewheel_local.connection import InvalidOption

from tunewheel_cli.publishing.items import SourceUnusable


def parse_maps(maps: Sequence[str]) -> dict[str, str]:
    """Return {column: field} of ``column=field`` options; a field may be dotted, as ``output.category``.

    Raises:
        InvalidOption: an option has another form, or a column or field is named twice.
    """
    mapping: dict[str, str] = {}
    for text in maps:
        column, _, field = text.rpartition("=")
        if not column or not field:
            raise InvalidOption(f"--map: {text!r} is not column=field, such as text=input")
        if column in mapping or field in mapping.values():
            raise InvalidOption(f"--map: {text!r} names a column or a field a second time; map each once")
        mapping[column] = field
    return mapping


def check_targets(mapping: Mapping[str, str], fields: Iterable[str]) -> None:
    """Check that the first part of every field exists. Raises InvalidOption."""
    choice = sorted(fields)
    for field in mapping.values():
        if field.split(".")[0] not in choice:
            raise InvalidOption(f"--map: there is no field {field!r}; choose from {', '.join(choice)}")


def check_columns(path: Any, names: Sequence[str], mapping: Mapping[str, str], kept: Iterable[str]) -> None:
    """Refuse a header without a mapped column, or in which one column would overwrite another.

    Raises:
        InvalidOption: a column of ``mapping`` is missing.
        SourceUnusable: two columns get the same name, or one a part of the other's.
    """
    for column in mapping:
        if column not in names:
            raise InvalidOption(f"--map: {path} has no column {column!r}; it has {', '.join(names)}")
    fields = [mapping.get(name, name) for name in names]
    fields = [field for field in fields if field.split(".")[0] in kept]
    for field in fields:
        if fields.count(field) > 1:
            raise SourceUnusable(f"{path}: two columns are {field!r}; rename one, or map it to another field")
        parent = field
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in fields:
                raise SourceUnusable(
                    f"{path}: a column is {parent!r} and another {field!r}, a part of it; rename one, or map "
                    "both"
                )


def look_up(record: Mapping[str, Any], path: str) -> Any:
    """Return what stands at ``path``: a key, or keys and positions with dots between. None: nothing."""
    if path in record:
        return record[path]
    value: Any = record
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def renamed(record: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return ``record`` with the names of ``mapping``; dotted fields make objects. Nulls are left out."""
    fields = {name: value for name, value in record.items() if name not in mapping}
    found = {field: look_up(record, path) for path, field in mapping.items()}
    objects: dict[str, Any] = {}
    for field, value in found.items():
        if value is None or value == "":
            continue
        *parents, last = field.split(".")
        inner = objects
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return fields | objects
