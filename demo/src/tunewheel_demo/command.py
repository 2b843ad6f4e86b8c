"""demo: the whole loop on the bundled example."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from tunewheel_cli.exits import reporting


def demo(
    var: Annotated[
        Path, typer.Option(help="Folder of the demo's wheel; that of an earlier demo is emptied first.")
    ] = Path("var/demo"),
    keep: Annotated[
        bool | None,
        typer.Option("--keep/--stop", help="Leave the wheel running.", show_default="in a terminal"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Stop after the first turn.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Run the whole loop on the bundled example, two turns of it, and write var/demo/summary.json.

    Exit code 0: an adapter was promoted; 4: the first one was refused; 1: something stopped on the way.
    """
    from tunewheel_demo.example import bundled
    from tunewheel_demo.run import DemoOptions, run_demo

    options = DemoOptions(example=bundled(), var=var, keep=keep, quiet=as_json, quick=quick)
    with reporting(as_json=as_json):
        code = asyncio.run(run_demo(options))
    if as_json:
        typer.echo((var / "summary.json").read_text("utf-8"))
    raise typer.Exit(code)
