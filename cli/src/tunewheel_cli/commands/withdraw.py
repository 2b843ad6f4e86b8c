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

    An id that neither the project's index nor the last days of the log name is withdrawn too, with a warning:
    it may be mistyped.
    """
    accepted = call.writer.documents.withdraw(project, documents, reason=reason)
    settle(call, project, accepted, timeout)
    call.show(accepted, "\n".join((f"withdrew {', '.join(documents)} from {project}", *accepted.warnings)))
