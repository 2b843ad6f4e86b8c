"""The commands about alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, completing
from tunewheel_cli.listing import listing

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


@calling
def show(call: Call, project: Project, alarm: Alarm = "latest") -> None:
    """Show an alarm: its figures, the questions behind it, and what was done about it."""
    found = call.client.alarms.show(project, alarm)
    call.show(found, lambda: _print_alarm(found))


def _print_alarm(found: AlarmDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    told = None if found.statistic is None else f"{found.statistic_name} {found.statistic:.3g}"
    p_value = "" if found.p_value is None else f", p {found.p_value:.2g}"
    print_facts(
        (
            ("alarm", found.alarm_id),
            ("state", found.state),
            ("detector", found.detector),
            ("since", found.since),
            ("resolved", found.resolved_at),
            ("found", told and told + p_value),
            ("against", found.reference or found.dataset_id),
            ("about", found.keywords),
            ("questions", found.prompts),
            ("to do", found.suggested_action),
            ("labels", found.labels),
            ("turns", found.turns),
        )
    )
    for name in found.completion_ids:
        print(f"  {flat(name)}")
