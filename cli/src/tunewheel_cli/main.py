"""The ``tunewheel`` command. Each command imports its modules only when it runs, so that --help is quick."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import typer

from tunewheel_cli.commands import (
    dataset,
    doctor,
    evaluating,
    exporting,
    keys,
    labels,
    log,
    models,
    planning,
    projects,
    publish,
    reviews,
    running,
    status,
    takebacks,
    topics,
    training,
)
from tunewheel_cli.exits import EPILOG

app = typer.Typer(
    name="tunewheel",
    help="Keeps a fine-tuned language model in step with a business.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
for module in (
    running,
    topics,
    projects,
    publish,
    takebacks,
    planning,
    training,
    evaluating,
    reviews,
    labels,
    models,
    exporting,
    status,
    doctor,
    log,
    dataset,
    keys,
):
    module.register(app)
if find_spec("tunewheel_demo"):  # It is built on this package, and the command's image is without it.
    import_module("tunewheel_demo.command").register(app)

if __name__ == "__main__":
    app()
