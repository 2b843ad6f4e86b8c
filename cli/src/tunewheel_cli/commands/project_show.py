"""project show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewheel_cli.calling import Call, Project, calling

if TYPE_CHECKING:
    from tunewheel_contracts.api.projects import ProjectDetail


@calling
def command(call: Call, project: Project) -> None:
    """Show where a project is on the wheel: what it serves, its alarms and turns, and what to do next."""
    found = call.client.projects.show(project)
    call.show(found, lambda: print_project(found))


def print_project(found: ProjectDetail) -> None:
    """Print a project's facts and its report."""
    from tunewheel_cli.texts import flat, print_facts

    counts = found.counts
    print_facts(
        (
            ("project", found.project),
            ("is", found.place),
            ("since", found.since),
            ("last", found.last),
            ("serves", found.serving),
            ("there are", f"{counts.datasets} datasets, {counts.runs} runs, {counts.promoted} promoted"),
        )
    )
    for line in found.report:
        print(f"  {line.about}: {flat(line.text)}")
