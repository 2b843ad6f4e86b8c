"""run list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, Project, calling


@calling
def command(
    call: Call,
    project: Project,
    state: Annotated[
        str | None,
        typer.Option(help="Only these: waiting, training, paused, completed, failed, cancelled, superseded."),
    ] = None,
    limit: Limit = 50,
) -> None:
    """List the training runs of a project: how far each is, and how it was judged."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.runs.list(project, state=state, limit=limit), f"{project} has no such run",
        ("run", "state", "step", "loss", "verdict", "dataset", "model", "since", "why"),
        lambda one: (
            one.run_id, one.state, f"{one.step}/{one.total_steps}" if one.total_steps else "", one.loss,
            one.verdict, one.dataset_id, one.model_id, one.created_at, one.why,
        ),
        shorten=("why",),
    )  # fmt: skip
