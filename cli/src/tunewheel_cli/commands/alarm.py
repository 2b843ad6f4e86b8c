"""The commands about alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, completing
from tunewheel_cli.listing import facts, listing

if TYPE_CHECKING:
    from tunewheel_contracts.api.alarms import AlarmDetail


list_ = listing(
    "alarms",
    "List the alarms of a project: production differs from the training data.",
    "{project} has no such alarm",
    {
        "alarm": "alarm_id", "state": "state", "detector": "detector", "since": "since",
        "dataset": "dataset_id", "keywords": "keywords",
    },
    shorten=("keywords",),
    state=Annotated[str | None, typer.Option(help="Only these: open, or resolved.")],
)  # fmt: skip
Alarm = Annotated[
    str,
    typer.Argument(
        help="An alarm: its id, the beginning of it, or latest.",
        autocompletion=completing("alarms", "alarm_id"),
    ),
]


def _found(one: AlarmDetail) -> str | None:
    p_value = "" if one.p_value is None else f", p {one.p_value:.2g}"
    return None if one.statistic is None else f"{one.statistic_name} {one.statistic:.3g}{p_value}"


FACTS = {
    "alarm": "alarm_id", "state": "state", "detector": "detector", "since": "since",
    "resolved": "resolved_at", "found": _found, "against": lambda one: one.reference or one.dataset_id,
    "about": "keywords", "questions": "prompts", "to do": "suggested_action", "labels": "labels",
    "turns": "turns",
}  # fmt: skip


@calling
def show(call: Call, project: Project, alarm: Alarm = "latest") -> None:
    """Show an alarm: its figures, the questions behind it, and what was done about it."""
    found = call.client.alarms.show(project, alarm)
    call.show(found, lambda: _print_alarm(found))


def _print_alarm(found: AlarmDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    print_facts(facts(found, FACTS))
    for name in found.completion_ids:
        print(f"  {flat(name)}")
