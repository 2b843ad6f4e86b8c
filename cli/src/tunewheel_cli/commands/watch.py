"""watch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, InvalidOption, calling, named_project
from tunewheel_cli.exits import print_json

if TYPE_CHECKING:
    from tunewheel_contracts.api.events import CloudEvent


@calling
def command(
    call: Call,
    only: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only this topic; may be repeated.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Comma-separated topics: end with the first event of one.")
    ] = None,
) -> None:
    """Follow the wheel, one line per event (with --json one JSON document per line).

    Records, feedback and completions are told only where --topic names them, and to reviewers alone.
    """
    from tunewheel_client import Gap

    ends = _checked(until.split(",") if until else ())
    chosen = {*_checked(topic or ()), *ends} if topic else None
    with call.client.events.follow(project=only, types=sorted(chosen or ())) as events:
        for event in events:
            if isinstance(event, Gap):
                call.tell("some events are missing here: the console did not hold them any more")
                continue
            if call.as_json:
                print_json(event.model_dump(mode="json"))
            else:
                _print(event)
            if event.type in ends:
                return


def _print(event: CloudEvent) -> None:
    from tunewheel_contracts.topics import BY_NAME
    from tunewheel_wheel.describing import in_words

    from tunewheel_cli.texts import flat

    data = BY_NAME[event.type].event.model_validate(event.data)
    moment = event.time.astimezone().strftime("%H:%M:%S")
    print(f"{moment}  {event.project:14} {event.type:20} {flat(in_words(data))}", flush=True)


def _checked(names: Iterable[str]) -> set[str]:
    """Return the names of topics.

    Raises:
        InvalidOption: a name is unknown.
    """
    from tunewheel_contracts.topics import BY_NAME

    found = {name.strip() for name in names}
    if unknown := sorted(found - set(BY_NAME)):
        raise InvalidOption(
            f"--topic: there is no topic {unknown[0]!r}; choose from {', '.join(sorted(BY_NAME))}"
        )
    return found
