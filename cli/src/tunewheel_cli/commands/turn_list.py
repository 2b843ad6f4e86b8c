"""turn list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, Project, calling


@calling
def command(
    call: Call,
    project: Project,
    state: Annotated[str | None, typer.Option(help="Only these: in flight, or ended.")] = None,
    limit: Limit = 50,
) -> None:
    """List the turns of the wheel: how far each came, and whether it helped."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.turns.list(project, state=state, limit=limit), f"{project} has no such turn",
        ("turn", "began", "because of", "is", "ended", "outcome", "run", "model"),
        lambda one: (
            one.turn_id, one.began_at, one.reason, one.stage_in_words or one.stage, one.end, one.outcome,
            one.run_id, one.model_id,
        ),
        shorten=("is",),
    )  # fmt: skip
