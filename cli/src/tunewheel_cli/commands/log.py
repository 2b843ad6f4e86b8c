"""watch, dead-letter list, lineage: read the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tunewheel_contracts import topics
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Reach, Registry, named_project, reaching

if TYPE_CHECKING:
    from tunewheel_contracts.event import Envelope

Project = Annotated[
    str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
]

# Topics with thousands of events, which are not shown by default.
BUSY = (
    topics.TICKET_PUBLISHED,
    topics.DOCUMENT_PUBLISHED,
    topics.EXAMPLE_PUBLISHED,
    topics.RECORD_INGESTED,
    topics.INFERENCE_COMPLETED,
    topics.INFERENCE_SCORED,
)


@reaching
async def watch(
    reach: Reach,
    project: Project = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only this topic; may be repeated.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also every ticket, record and completion.")] = False,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="First all that was.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Comma-separated topics: end with the first event of one.")
    ] = None,
) -> None:
    """Follow the log, one line per event (with --json one JSON document per line)."""
    from tunewheel_cli.reading import follow

    ends = {spec.name for spec in _topics_called(until.split(","))} if until else set()
    chosen = _topics_called(topic) if topic else _watched_topics(everything=all_)
    specs = tuple({spec.name: spec for spec in (*chosen, *_topics_called(sorted(ends)))}.values())
    async for event in follow(reach.client_options(), specs, from_beginning=from_beginning):
        if project not in (None, event.project):
            continue
        _print_event(event, as_json=reach.as_json)
        if event.data.type in ends:
            return


def _print_event(event: Envelope[Any], *, as_json: bool) -> None:
    from tunewheel_wheel.describing import describe

    if as_json:
        data = event.data.model_dump(mode="json")
        print_json({"id": event.id, "type": event.data.type, "time": event.time, "source": event.source,
                    "project": event.project, "causationid": event.causation_id,
                    "correlationid": event.correlation_id, "data": data})  # fmt: skip
        return
    moment = event.time.astimezone().strftime("%H:%M:%S")
    print(f"{moment}  {event.project:14} {event.data.type:20} {describe(event)}", flush=True)


@reaching
async def dead_letters(
    reach: Reach,
    topic: Annotated[
        list[str] | None, typer.Option(help="Only what this topic brought; may be repeated.")
    ] = None,
) -> None:
    """Show what services refused, one message after the other, with the field and the reason.

    Nothing is read from there again: mend it and publish it anew.
    """
    from tunewheel_cli.dead_letters import read_dead_letters

    specs = _topics_called(topic) if topic else TOPICS
    count = 0
    async for letter in read_dead_letters(reach.client_options(), specs):
        count += 1
        verb = "crashed on" if letter.kind == "crashed" else "refused"
        reach.show(
            letter.as_json(),
            f"{letter.topic}[{letter.partition}]@{letter.offset}  {letter.service} {verb} it\n"
            f"  {letter.field} {letter.reason}\n  {letter.message!r}",
        )
    if not count and not reach.as_json:
        print("nothing was refused")


@reaching
async def lineage(
    reach: Reach,
    project: Annotated[str, typer.Argument(help="The project.", show_default=False, callback=named_project)],
    name: Annotated[
        str,
        typer.Argument(
            help="A source, record, dataset, run, model, scorecard, evaluation, review, erasure or event.",
            show_default=False,
        ),
    ],
    records: Annotated[int, typer.Option(help="Name at most so many records.", min=0, max=10_000)] = 100,
    registry: Registry = None,
) -> None:
    """Show what something came from, down to the source records, and what came of it."""
    from rich.console import Console
    from tunewheel_local.wheel_secrets import pseudonym_secret

    from tunewheel_cli.lineage import ask_lineage, lineage_tree

    place, secret = reach.endpoint("registry", registry), pseudonym_secret(reach.var)
    found = await ask_lineage(place, project, name, records=records, secret=secret)
    reach.show(found, lambda: Console(highlight=False).print(lineage_tree(found)))


def _watched_topics(*, everything: bool) -> tuple[TopicSpec, ...]:
    """Return the topics to show; the busy ones only if ``everything`` is set."""
    return tuple(spec for spec in TOPICS if everything or spec not in BUSY)


def _topics_called(names: Iterable[str]) -> tuple[TopicSpec, ...]:
    """Return the topics called ``names``.

    Raises:
        InvalidOption: a name is unknown.
    """
    found: list[TopicSpec] = []
    for name in names:
        spec = BY_NAME.get(name.strip())
        if spec is None:
            raise InvalidOption(
                f"--topic: there is no topic {name!r}; choose from {', '.join(sorted(BY_NAME))}"
            )
        found.append(spec)
    return tuple(found)
