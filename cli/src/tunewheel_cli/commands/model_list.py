"""model list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, Project, calling


@calling
def command(
    call: Call,
    project: Project,
    stage: Annotated[str | None, typer.Option(help="Only models in this stage, such as production.")] = None,
    limit: Limit = 50,
) -> None:
    """List the registered models of a project, and the stage of each."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.models.list(project, stage=stage, limit=limit), f"{project} has no such model",
        ("model", "kind", "stage", "answers", "since", "run", "base"),
        lambda one: (
            one.model_id, one.kind, one.stage.value,
            (f"{one.role} {one.percent} %" if one.role else "") + (" pinned" if one.pinned else ""),
            one.since, one.run_id, f"{one.base.name} at {one.base.revision.removeprefix('sha256:')[:12]}",
        ),
        shorten=("base",),
    )  # fmt: skip
