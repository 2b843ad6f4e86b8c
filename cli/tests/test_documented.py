"""Every command is in the README, and explains each of its options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from tunewheel_cli.main import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, by the words that call it."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*path, name))


FOUND = dict(commands(typer.main.get_command(app)))


def test_all_commands_are_seen() -> None:
    assert len(FOUND) >= 20
    assert ("dataset", "diff") in FOUND


def test_the_readme_names_every_command() -> None:
    named = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    assert [" ".join(path) for path in FOUND if f"`{' '.join(path)}" not in named] == []


def test_every_command_and_option_is_explained() -> None:
    silent = [
        f"{' '.join(path)} {option.name}"
        for path, command in FOUND.items()
        for option in command.params
        if not (getattr(option, "help", None) or "").strip()
    ]
    assert silent == []
    assert [path for path, command in FOUND.items() if not (command.help or "").strip()] == []
