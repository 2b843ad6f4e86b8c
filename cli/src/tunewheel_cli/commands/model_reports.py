"""model card, compare: reports of the registry on single models."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_cli.client import Endpoint

Project = Annotated[str, typer.Argument(help="The project.", show_default=False)]
Model = Annotated[str, typer.Argument(help="A model, as in `tunewheel models`.", show_default=False)]
Registry = Annotated[
    str | None,
    typer.Option(
        envvar="TUNEWHEEL_REGISTRY", help="The registry's address.", show_default="that of the wheel"
    ),
]


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group ``model``."""
    for command in (card, compare):
        group.command()(command)


def _registry(reach: Reach, url: str | None) -> Endpoint:
    from tunewheel_cli.client import Endpoint

    return Endpoint.of("registry", reach.var, url=url)


@reaching
def card(reach: Reach, project: Project, model: Model, registry: Registry = None) -> None:
    """Print a model's card: Markdown with metadata in YAML, as the Hugging Face hub has them."""
    from tunewheel_cli.client import read_registry

    text = asyncio.run(
        read_registry(_registry(reach, registry), "projects", project, "models", model, "card")
    )
    if reach.as_json:
        print_json({"model_id": model, "card": text})
    else:
        print(text, end="")


@reaching
def compare(
    reach: Reach,
    project: Project,
    first: Model,
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    registry: Registry = None,
) -> None:
    """Show what changed from one model to another: data, recipe, criteria, figures, what serves."""
    from tunewheel_cli.client import read_registry

    path = ("projects", project, "models", first, "comparison", second)
    found = json.loads(asyncio.run(read_registry(_registry(reach, registry), *path)))
    if reach.as_json:
        print_json(found)
    else:
        from tunewheel_cli.comparison import print_comparison

        print_comparison(found)
