"""forget."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, InvalidOption, Project, Timeout, calling
from tunewheel_cli.exits import Exit

if TYPE_CHECKING:
    from tunewheel_contracts.api.commands import Erasure

POLL_SECONDS = 0.5


@calling
def command(
    call: Call,
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
    reason: Annotated[str, typer.Option(help="Why; it is kept with the event.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Timeout = 120.0,
) -> None:
    """Erase what was published about a person, or from one source, and wait until every holder says so.

    Each holder's erasure.completed is its proof. It cannot be undone; what is published afterwards is not
    concerned. A holder that is down carries it out when it is back: exit code 6 says that one was missing.
    """
    if (customer is None) == (source is None):
        raise InvalidOption("--customer: or --source must say what to erase; give exactly one of the two")
    erasures = call.writer.erasures
    call.client.projects.show(project)  # an unknown project is said before the person is asked
    if not yes and not call.as_json:
        typer.confirm(f"Erase everything of {customer or source} in {project}, for good?", abort=True)
    accepted = erasures.request(
        project,
        customer=customer,
        source_id=source,
        requested_by=requested_by,
        reason=reason,
        request=request,
    )
    ends = time.monotonic() + timeout
    found = erasures.show(project, accepted.erasure_id)
    while found.missing and time.monotonic() + POLL_SECONDS < ends:
        time.sleep(POLL_SECONDS)
        found = erasures.show(project, accepted.erasure_id)
    call.show(found, lambda: _print(found))
    if timeout and found.missing:
        sys.exit(Exit.UNFINISHED)


def _print(found: Erasure) -> None:
    for one in found.holders:
        did = f"has erased {one.records:,} records" if one.done else "has not answered yet"
        print(f"{one.holder} {did}")
    if found.dataset_ids:
        print(f"dataset versions that still hold it: {', '.join(found.dataset_ids)}")
    if found.model_ids:
        print(f"adapters that were trained on it: {', '.join(found.model_ids)}")
