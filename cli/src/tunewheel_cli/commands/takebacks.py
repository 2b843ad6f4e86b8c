"""withdraw, forget: withdraws documents, and erases data of a person or a source."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.exits import Exit
from tunewheel_cli.reach import Project, Reach, reaching

Reason = Annotated[str, typer.Option(help="Why; it is kept with the event.")]


@reaching
async def withdraw(
    reach: Reach,
    documents: Annotated[
        list[str], typer.Argument(help="Ids of documents: their paths below what was published.")
    ],
    project: Project,
    reason: Reason = "",
) -> None:
    """Keep documents out of every dataset version from here on; publishing one again brings it back.

    An id that the project never had is an error, and nothing is withdrawn.
    """
    from rich.console import Console
    from tunewheel_contracts.events.upstream import DocumentWithdrawn

    from tunewheel_cli.publishing.sender import publish
    from tunewheel_cli.reading import require_documents, require_project

    principal = reach.principal()
    events = [
        _checked(DocumentWithdrawn, project=project, document_id=name, reason=reason, principal=principal)
        for name in documents
    ]
    options = reach.client_options()

    await require_project(options, project)
    with Console(stderr=True, quiet=reach.as_json).status("reading the published documents …"):
        await require_documents(options, project, documents)
    ids = [event.id for event in await publish(options, *events)]
    reach.show(
        {"project": project, "withdrawn": documents, "event_ids": ids},
        f"withdrew {', '.join(documents)} from {project}",
    )


@reaching
def forget(
    reach: Reach,
    project: Project,
    requested_by: Annotated[str, typer.Option(help="Who asks; it stands in the proof.")],
    customer: Annotated[
        str | None,
        typer.Option(
            help="Erase everything of this person (the customer of tickets, the group of examples)."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Erase one source: the id of a ticket, a document, an example.")
    ] = None,
    request: Annotated[
        str | None, typer.Option(help="Names the request, such as the number of the letter.")
    ] = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the holders; 0 does not wait.")] = 120.0,
) -> None:
    """Erase what was published about a person, or from one source, and wait until every holder says so.

    Each holder's erasure.completed is its proof. It cannot be undone; what is published afterwards is not
    concerned. A holder that is down carries it out when it is back: exit code 6 says that one was missing.
    """
    from tunewheel_contracts.events.upstream import ErasureRequested
    from tunewheel_contracts.identity import content_id

    from tunewheel_cli.forgetting import Outcome, print_outcome, wait_for_holders
    from tunewheel_cli.publishing.sender import publish
    from tunewheel_cli.reading import require_project

    if (customer is None) == (source is None):
        raise InvalidOption("--customer: or --source must say what to erase; give exactly one of the two")
    now = datetime.now(UTC)
    name = request or content_id("erasure", [project, customer, source, now.isoformat()])
    event = _checked(
        ErasureRequested, project=project, erasure_id=name, customer=customer, source_id=source,
        requested_by=requested_by, requested_at=now, reason=reason, principal=reach.principal(),
    )  # fmt: skip
    options = reach.client_options()
    if not yes and not reach.as_json:
        typer.confirm(f"Erase everything of {customer or source} in {project}, for good?", abort=True)

    async def send() -> Outcome:
        await require_project(options, project)
        (requested,) = await publish(options, event)
        return await wait_for_holders(options, Outcome(project, name, requested.id), timeout_seconds=timeout)

    outcome = asyncio.run(send())
    ids = {"project": project, "erasure_id": name, "event_ids": [outcome.event_id]}
    reach.show(ids | outcome.as_json(), lambda: print_outcome(outcome))
    if timeout and outcome.missing:
        sys.exit(Exit.UNFINISHED)


def _checked(event_class: Any, **fields: Any) -> Any:
    """Return the event. An invalid field raises our error instead of pydantic's."""
    from pydantic import ValidationError
    from tunewheel_contracts.errors import InvalidEvent
    from tunewheel_contracts.reading import at_door

    try:
        return event_class.model_validate(fields, context=at_door())
    except ValidationError as error:
        raise InvalidEvent.from_validation(error) from error
