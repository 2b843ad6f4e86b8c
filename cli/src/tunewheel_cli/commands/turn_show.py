"""turn show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, completing

if TYPE_CHECKING:
    from tunewheel_contracts.api.turns import TurnDetail

Turn = Annotated[
    str,
    typer.Argument(
        help="A turn: its id, the beginning of it, or latest.", autocompletion=completing("turns", "turn_id")
    ),
]


@calling
def command(call: Call, project: Project, turn: Turn = "latest") -> None:
    """Show how far a turn came, and what it led to."""
    found = call.client.turns.show(project, turn)
    call.show(found, lambda: print_turn(found))


def print_turn(found: TurnDetail) -> None:
    """Print a turn's facts, and the monitor's report of its end."""
    from tunewheel_cli.texts import print_facts

    report = found.completed
    print_facts(
        (
            ("turn", found.turn_id),
            ("is", found.stage_in_words or found.stage),
            ("began", found.began_at),
            ("because of", found.reason),
            ("asked by", found.asked_by),
            ("alarms", found.alarm_ids),
            ("dataset", found.dataset_id),
            ("run", found.run_id),
            ("model", found.model_id),
            ("served", found.served_at),
            ("ended", found.end),
            ("outcome", found.outcome),
            ("because", report and report.reasons),
            ("to do", report and report.next_step),
        )
    )
