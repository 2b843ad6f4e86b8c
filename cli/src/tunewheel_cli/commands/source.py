"""source: shows what a project's sources make of another system's records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.calling import SPEC_FILE, Call, InvalidOption, calling
from tunewheel_cli.exits import Exit

if TYPE_CHECKING:
    from tunewheel_contracts.sources.mapping import Mapped

SHOWN_CHARACTERS = 200


@calling
def try_(
    call: Call,
    path: Annotated[
        Path,
        typer.Argument(help="A message or an export: JSON, JSON Lines, CSV or XLSX.", show_default=False),
    ],
    source: Annotated[
        str | None, typer.Option(help="The source in the spec, or a mapping that comes with Tunewheel.")
    ] = None,
    spec: Annotated[Path, typer.Option(help="The project's YAML.")] = Path(SPEC_FILE),
    limit: Annotated[int, typer.Option(help="The most records to show.", min=1)] = 20,
) -> None:
    """Show what becomes of another system's records: each event, or why a record is refused.

    Nothing is sent. Without --source the spec's only source is meant. A message of a topic is JSON here, as a
    console consumer prints it, also where it is Avro or Protobuf on the topic.
    """
    from tunewheel_cli.publishing.mapped import items_of, source_of

    chosen = source_of(source, spec)
    found = [one for _, one in items_of(path, chosen, "project")]
    counts = {what: sum(_what(one) == what for one in found) for what in ("event", "refused", "left out")}
    shown = [_described(number, one) for number, one in enumerate(found[:limit], 1)]

    def tell() -> None:
        for one in shown:
            print(f"record {one['record']}: {one['result']}")
            for name, value in one["fields"].items():
                print(f"  {name}: {_short(value)}")
        if len(found) > limit:
            print(f"… and {len(found) - limit:,} records more; --limit shows them")
        print(f"{counts['event']:,} events, {counts['refused']:,} refused, {counts['left out']:,} left out")

    call.show({"source": chosen.name, "counts": counts, "records": shown}, tell)
    if counts["refused"]:
        raise typer.Exit(Exit.REFUSED)
    if not counts["event"]:
        raise InvalidOption(
            f"{path}: none of its {len(found):,} records becomes an event; correct the mapping"
        )


def _what(one: Mapped) -> str:
    return "event" if one.event is not None else "refused" if one.refusal is not None else "left out"


def _described(number: int, one: Mapped) -> dict[str, Any]:
    if one.event is not None:
        fields = one.event.model_dump(mode="json", exclude_defaults=True, exclude={"project"})
        return {"record": number, "result": one.event.type, "fields": fields}
    if one.refusal is not None:
        return {"record": number, "result": "refused", "fields": {one.refusal.field: one.refusal.reason}}
    return {"record": number, "result": "left out by where", "fields": {}}


def _short(value: Any) -> str:
    from tunewheel_cli.texts import flat

    text = flat(value if isinstance(value, str) else str(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
