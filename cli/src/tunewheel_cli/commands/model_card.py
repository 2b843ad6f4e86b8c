"""model card."""

from __future__ import annotations

from tunewheel_cli.calling import Call, Model, Project, calling
from tunewheel_cli.texts import printable


@calling
def command(call: Call, model: Model, project: Project) -> None:
    """Print a model's card: Markdown with metadata in YAML, as the Hugging Face hub has them."""
    text = call.client.models.card(project, model)
    call.show({"model_id": model, "card": text}, lambda: print(printable(text), end=""))
