"""model card, compare: the registry's reports on models."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tunewheel_cli.reach import Reach, Registry, reaching

Project = Annotated[str, typer.Argument(help="The project, as in its project.yaml.", show_default=False)]
ModelId = Annotated[str, typer.Argument(help="A model, as in `tunewheel model list`.", show_default=False)]


@reaching
async def card(reach: Reach, project: Project, model: ModelId, registry: Registry = None) -> None:
    """Print a model's card: Markdown with metadata in YAML, as the Hugging Face hub has them."""
    from tunewheel_cli.client import read_registry

    path = ("projects", project, "models", model, "card")
    text = await read_registry(reach.endpoint("registry", registry), *path)
    reach.show({"model_id": model, "card": text}, lambda: print(text, end=""))


@reaching
async def compare(
    reach: Reach,
    project: Project,
    first: ModelId,
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    registry: Registry = None,
) -> None:
    """Show what changed from one model to another: data, recipe, criteria, figures, what serves."""
    from tunewheel_cli.client import read_registry
    from tunewheel_cli.comparison import print_comparison

    path = ("projects", project, "models", first, "comparison", second)
    found = json.loads(await read_registry(reach.endpoint("registry", registry), *path))
    reach.show(found, lambda: print_comparison(found))
