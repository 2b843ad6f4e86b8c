"""Reads the YAML that people write: specs of projects, and lists of criteria."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidSpec

from tunewheel_cli.calling import InvalidOption

if TYPE_CHECKING:
    from tunewheel_contracts.formats.spec import ProjectSpec

MAX_SPEC_BYTES = 1 << 20


def read_spec(path: Path) -> ProjectSpec:
    """Read and check a spec without a wheel.

    Raises:
        InvalidSpec: the file cannot be read or is no valid spec; ``field`` is the dotted path.
    """
    from tunewheel_outputs.specs import check_spec

    return check_spec(_text(path))


def read_spec_file(path: Path) -> tuple[str, str]:
    """Return the project's name and the text of a spec. The wheel checks all else.

    Raises:
        InvalidSpec: the file cannot be read, is no YAML mapping, or names no project.
    """
    raw = _mapping(path, text := _text(path))
    if not isinstance(name := raw.get("project"), str):
        raise InvalidSpec(field="project", reason="is missing: is it the spec of a project?")
    return name, text


def read_criteria(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the criteria of a YAML file: a list as in ``project.yaml``, alone or under ``criteria``.

    Raises:
        InvalidOption: the file cannot be read, or holds no such list.
    """
    import yaml

    try:
        raw: Any = yaml.safe_load(_text(path))
    except InvalidSpec as error:
        raise InvalidOption(f"--criteria: {error.reason}") from error
    except yaml.YAMLError as error:
        raise InvalidOption(f"--criteria: {path} is not YAML{_place(error)}") from None
    listed = raw.get("criteria") if isinstance(raw, dict) else raw
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise InvalidOption(f"--criteria: {path} holds no list of criteria")
    return tuple(listed)


def write_recipe(path: Path, changes: Mapping[str, Any]) -> None:
    """Write ``changes`` into ``train`` of a spec. All other lines stay as they are, with their comments.

    Raises:
        InvalidSpec: the file cannot be read, is no YAML mapping, or its ``train`` is not written in block
            style; nothing is written then.
    """
    import yaml

    text = _text(path)
    spec = _mapping(path, text)
    lines = text.splitlines(keepends=True)
    for name, value in changes.items():
        written = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
        _write_field(lines, name, written)
    changed = "".join(lines)
    try:
        as_wanted = yaml.safe_load(changed) == {**spec, "train": {**(spec.get("train") or {}), **changes}}
    except (yaml.YAMLError, TypeError):
        as_wanted = False
    # YAML takes the last of two sections of one name
    if not as_wanted or sum(line.startswith("train:") for line in lines) > 1:
        told = ", ".join(f"{name}: {value}" for name, value in changes.items())
        raise InvalidSpec(field="train", reason=f"is not written one field a line; write yourself: {told}")
    path.write_text(changed, "utf-8")


def _write_field(lines: list[str], name: str, written: str) -> None:
    """Replace the value of one field of ``train``, or add the field at the beginning of the section."""
    at = next((place for place, line in enumerate(lines) if re.match(r"train:\s*(#.*)?$", line)), None)
    if at is None:
        lines += ["" if not lines or lines[-1].endswith("\n") else "\n", "\n", "train:\n"]
        at = len(lines) - 1
    inside = range(at + 1, len(lines))
    end = next((place for place in inside if re.match(r"[^\s#]", lines[place])), len(lines))
    first = next((found for line in lines[at + 1 : end] if (found := re.match(r"(\s+)\w+:", line))), None)
    indent = first[1] if first else "  "
    for place in range(at + 1, end):
        found = re.match(rf"({indent}{name}:)\s*[^#\n]*?(\s*(?:\s#.*)?\n?)$", lines[place])
        if found:
            lines[place] = f"{found[1]} {written}{found[2]}"
            return
    lines.insert(at + 1, f"{indent}{name}: {written}\n")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise InvalidSpec(
                field="(file)", reason=f"{path} is over {MAX_SPEC_BYTES} bytes: is it the spec?"
            )
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpec(
            field="(file)", reason=f"{path} is not UTF-8 (byte {error.start}); save it so"
        ) from error
    except OSError as error:
        raise InvalidSpec(field="(file)", reason=f"{path} cannot be read: {error.strerror}") from error


def _mapping(path: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:  # its message would quote the line, perhaps a customer's
        raise InvalidSpec(field="(file)", reason=f"{path} is not YAML{_place(error)}") from None
    if not isinstance(raw, dict):
        raise InvalidSpec(field="(file)", reason=f"{path} is not a mapping: is it the spec of a project?")
    return raw


def _place(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""
