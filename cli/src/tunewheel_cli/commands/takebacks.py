"""withdraw, forget: what was published is taken back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Reach, reaching

Project = Annotated[str, typer.Option("--project", "-p", help="The project, as in its project.yaml.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the event.")]


def register(app: typer.Typer) -> None:
    for command in (withdraw, forget):
        app.command()(command)


@reaching
def withdraw(
    reach: Reach,
    documents: Annotated[
        list[str], typer.Argument(help="Ids of documents: their paths below what was published.")
    ],
    project: Project,
    reason: Reason = "",
) -> None:
    """Keep documents out of every dataset version from here on; publishing one again brings it back."""
    from tunewheel_contracts.events.upstream import DocumentWithdrawn

    events = [
        _checked(DocumentWithdrawn, project=project, document_id=name, reason=reason) for name in documents
    ]
    ids = asyncio.run(_send(reach, project, events))
    if reach.as_json:
        print_json({"project": project, "withdrawn": documents, "event_ids": ids})
    else:
        print(f"withdrew {', '.join(documents)} from {project}")


@reaching
def forget(
    reach: Reach,
    project: Project,
    requested_by: Annotated[str, typer.Option(help="Who asks; it stands in the proof.")],
    customer: Annotated[
        str | None, typer.Option(help="Erase everything of this person (the customer of tickets).")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Erase one source: the id of a ticket, a document, an example.")
    ] = None,
    request: Annotated[
        str | None, typer.Option(help="Names the request, such as the number of the letter.")
    ] = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase what was published about a person, or from one source; erasure.completed is the proof.

    It cannot be undone. What is published afterwards is not concerned.
    """
    from tunewheel_contracts.events.upstream import ErasureRequested
    from tunewheel_contracts.identity import content_id

    if (customer is None) == (source is None):
        raise InvalidOption("--customer: or --source must say what to erase; give exactly one of the two")
    now = datetime.now(UTC)
    name = request or content_id("erasure", [project, customer, source, now.isoformat()])
    event = _checked(
        ErasureRequested, project=project, erasure_id=name, customer=customer, source_id=source,
        requested_by=requested_by, requested_at=now, reason=reason,
    )  # fmt: skip
    if not yes and not reach.as_json:
        typer.confirm(f"Erase everything of {customer or source} in {project}, for good?", abort=True)
    ids = asyncio.run(_send(reach, project, [event]))
    if reach.as_json:
        print_json({"project": project, "erasure_id": name, "event_ids": ids})
    else:
        print(f"asked for erasure {name}; its proof comes on erasure.completed: "
              f"`tunewheel watch --topic erasure.completed --project {project}`")  # fmt: skip


def _checked(event_class: Any, **fields: Any) -> Any:
    """Return the event; a field that cannot be is named in our words, not pydantic's."""
    from pydantic import ValidationError
    from tunewheel_contracts.errors import InvalidEvent

    try:
        return event_class(**fields)
    except ValidationError as error:
        raise InvalidEvent.from_validation(error) from error


async def _send(reach: Reach, project: str, events: list[Any]) -> list[str]:
    from tunewheel_contracts.event import new_event

    from tunewheel_cli.known import require_project
    from tunewheel_cli.publishing.events import SOURCE
    from tunewheel_cli.publishing.sender import publish_events

    options = reach.client_options()
    await require_project(options, project)
    envelopes = [new_event(event, source=SOURCE) for event in events]
    await publish_events(options, *envelopes)
    return [envelope.id for envelope in envelopes]
