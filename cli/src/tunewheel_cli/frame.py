"""The command's groups. A command's module is imported only when that command runs, or explains itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from tunewheel_cli.table import BY_WORDS, HELP, NOUNS, Entry, below, explained


class Group(TyperGroup):
    """The commands below some words of the table."""

    def __init__(self, *, words: str = "", **attributes: Any) -> None:
        super().__init__(**attributes)
        self.words = words
        self.commands = dict.fromkeys(below(words))  # type: ignore[assignment]  # their names, for suggestions

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        words = f"{self.words} {cmd_name}".strip()
        if (entry := BY_WORDS.get(words)) is not None:
            package, dot, _ = entry.place.partition(".")
            if dot and find_spec(package) is None:  # the command's image is without the demo
                ctx.fail(f"{words} is not installed here: the package {package} is missing")
            return load(entry)
        if words in NOUNS:
            return Group(
                name=cmd_name, words=words, help=NOUNS[words], no_args_is_help=True, rich_markup_mode=None
            )
        return None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(f"{explained([*self.words.split(), '--help'])}\n")

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer.core import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in below(self.words).items()
            if name.startswith(incomplete)
        ]
        return [*found, *super(TyperGroup, self).shell_complete(ctx, incomplete)]


class Root(Group):
    """The command itself. It prints its errors as JSON under --json."""

    def main(
        self, args: Sequence[str] | None = None, *others: Any, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        extra.setdefault("prog_name", "tunewheel")
        try:
            code = super().main(words, *others, standalone_mode=False, **extra)
        except typer.Abort:
            print("Aborted!", file=sys.stderr)
            code = 1
        except typer.TyperException as error:
            code = _explain(error, as_json="--json" in words)
        sys.exit(code or 0)


def _explain(error: Any, *, as_json: bool) -> int:
    """Print an error of the command line; return the exit code."""
    if as_json:
        from tunewheel_cli.exits import print_json

        param = getattr(error, "param", None)
        field = param.opts[0] if param is not None and param.opts else getattr(error, "option_name", None)
        print_json({"error": error.format_message(), "kind": type(error).__name__, "field": field})
    else:
        error.show()
    return int(error.exit_code)


def load(entry: Entry) -> Any:
    """Return the command of ``entry``."""
    module, _, function = entry.place.partition(":")
    found = import_module(module if "." in module else f"tunewheel_cli.commands.{module}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(entry.words.split()[-1])(getattr(found, function))
    return typer.main.get_command(single)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tunewheel {version('tunewheel-cli')}")
        raise typer.Exit


app = typer.Typer(name="tunewheel", help=HELP, cls=Root, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def tunewheel(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Keeps a fine-tuned language model in step with a business."""
