"""alarm list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, Project, calling


@calling
def command(
    call: Call,
    project: Project,
    state: Annotated[str | None, typer.Option(help="Only these: open, or resolved.")] = None,
    limit: Limit = 50,
) -> None:
    """List the alarms of a project: production differs from the training data."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.alarms.list(project, state=state, limit=limit), f"{project} has no such alarm",
        ("alarm", "state", "detector", "since", "dataset", "keywords"),
        lambda one: (one.alarm_id, one.state, one.detector, one.since, one.dataset_id, one.keywords),
        shorten=("keywords",),
    )  # fmt: skip
