"""The commands about turns of the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, Project, Unfinished, calling, completing
from tunewheel_cli.listing import facts, listing

if TYPE_CHECKING:
    from tunewheel_contracts.api.turns import TurnDetail


list_ = listing(
    "turns",
    "List the turns of the wheel: how far each came, and whether it helped.",
    "{project} has no such turn",
    {
        "turn": "turn_id", "began": "began_at", "because of": "reason",
        "is": lambda one: one.stage_in_words or one.stage, "ended": "end", "outcome": "outcome",
        "run": "run_id", "model": "model_id",
    },
    shorten=("is",),
    state=Annotated[str | None, typer.Option(help="Only these: in flight, or ended.")],
)  # fmt: skip
Turn = Annotated[
    str,
    typer.Argument(
        help="A turn: its id, the beginning of it, or latest.", autocompletion=completing("turns", "turn_id")
    ),
]


FACTS = {
    "turn": "turn_id", "is": lambda one: one.stage_in_words or one.stage, "began": "began_at",
    "because of": "reason", "asked by": "asked_by", "alarms": "alarm_ids", "dataset": "dataset_id",
    "run": "run_id", "model": "model_id", "served": "served_at", "ended": "end", "outcome": "outcome",
    "because": lambda one: one.completed and one.completed.reasons,
    "to do": lambda one: one.completed and one.completed.next_step,
}  # fmt: skip


@calling
def show(call: Call, project: Project, turn: Turn = "latest") -> None:
    """Show how far a turn came, and what it led to."""
    found = call.client.turns.show(project, turn)
    call.show(found, lambda: print_turn(found))


def print_turn(found: TurnDetail) -> None:
    """Print a turn's facts, and the monitor's report of its end."""
    from tunewheel_cli.texts import print_facts

    print_facts(facts(found, FACTS))


@calling
def wait(
    call: Call,
    project: Project,
    turn: Turn = "latest",
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait.", show_default="without end", min=0)
    ] = None,
) -> None:
    """Wait until a turn of the wheel has ended, and show what it led to."""
    from tunewheel_client import Away

    try:
        found = call.client.turns.wait(project, turn, timeout_seconds=timeout)
    except Away as error:
        if error.status is None and call.client.turns.show(project, turn).state != "ended":
            raise Unfinished(error.message) from error
        raise
    call.show(found, lambda: print_turn(found))
