"""withdraw."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, Timeout, calling, settle


@calling
def command(
    call: Call,
    documents: Annotated[
        list[str], typer.Argument(help="Ids of documents: their paths below what was published.")
    ],
    project: Project,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the event.")] = "",
    timeout: Timeout = 30.0,
) -> None:
    """Keep documents out of every dataset version from here on; publishing one again brings it back.

    An id that the project never had is an error, and nothing is withdrawn.
    """
    accepted = call.writer.documents.withdraw(project, documents, reason=reason)
    settle(call, project, accepted, timeout)
    call.show(accepted, f"withdrew {', '.join(documents)} from {project}")
