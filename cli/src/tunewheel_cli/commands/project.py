"""The commands about projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, completing, named_project
from tunewheel_cli.listing import facts, listing

if TYPE_CHECKING:
    from tunewheel_contracts.api.projects import ProjectDetail


list_ = listing(
    "projects",
    "List the projects that you may read: where each is on the wheel, and what it serves.",
    "no project is declared",
    {
        "project": "project", "is": "place", "since": "since", "champion": "champion",
        "datasets": "counts.datasets", "runs": "counts.runs", "alarms": "counts.open_alarms", "last": "last",
    },
    shorten=("last", "is"),
)  # fmt: skip


def _counts(one: ProjectDetail) -> str:
    counts = one.counts
    return f"{counts.datasets} datasets, {counts.runs} runs, {counts.promoted} promoted"


FACTS = {
    "project": "project", "is": "place", "since": "since", "last": "last", "serves": "serving",
    "there are": _counts,
}  # fmt: skip


@calling
def show(call: Call, project: Project) -> None:
    """Show where a project is on the wheel: what it serves, its alarms and turns, and what to do next."""
    found = call.client.projects.show(project)
    call.show(found, lambda: print_project(found))


def print_project(found: ProjectDetail) -> None:
    """Print a project's facts and its report."""
    from tunewheel_cli.texts import flat, print_facts

    print_facts(facts(found, FACTS))
    for line in found.report:
        print(f"  {line.about}: {flat(line.text)}")


@calling
def declare(
    call: Call,
    spec: Annotated[Path, typer.Argument(help="The project's YAML.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Only check it; nothing changes.")] = False,
) -> None:
    """Check a project spec and put it in force; all that is wrong with it is told at once.

    Says how likely a verdict is on as many rows as the smallest version has, and what would make it likelier.
    """
    from tunewheel_cli.power_tables import power_lines
    from tunewheel_cli.spec_file import read_spec_file

    name, text = read_spec_file(spec)
    projects = call.client.projects if check else call.writer.projects
    answer = projects.declare(name, text, check=check)

    def tell() -> None:
        done = "checked" if check else "declared"
        print(f"{done} {answer.project}: {answer.criteria} criteria, base model {answer.base_model}")
        if answer.power is not None:
            print("\n".join(power_lines(answer.power)))

    call.show(answer, tell)
    for caution in answer.cautions:
        call.tell(f"caution: {caution}")
    for note in answer.notes:
        call.tell(f"note: {note}")


@calling
def remove(
    call: Call,
    name: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT", help="The project's name.", callback=named_project,
            autocompletion=completing("projects", "project"),
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:  # fmt: skip
    """Take back a project's declaration: nothing of it is built, trained, watched or served any more.

    What was published, built and trained stays, and `tunewheel project declare` brings it back. To erase what
    was published about a person, use `tunewheel forget` first.
    """
    projects = call.writer.projects
    if not yes and not call.as_json:
        typer.confirm(f"Stop building, training, watching and serving {name}?", abort=True)
    projects.remove(name)
    call.show(
        {"project": name, "removed": True}, f"removed {name}; `tunewheel project declare` brings it back"
    )
