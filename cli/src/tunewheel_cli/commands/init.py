"""init: drafts a project of the files that somebody has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import named_project
from tunewheel_cli.exits import print_json, reporting

if TYPE_CHECKING:
    from tunewheel_cli.drafting.start import Started


def init(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files of answered questions (CSV, TSV, XLSX, JSON, JSON Lines, also .gz), and folders of "
            "documents.",
            show_default=False,
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="Its name.", show_default="the first file's", callback=named_project
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("project.yaml"),
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="column=field, where the question or the answer is not found."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="A model of the hub, or a path.", show_default="by memory and time")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Draft a project of your files: its task, base model, recipe, and criteria that the data can decide.

    The form of each file is found by its first records. Nothing is published and nothing is sent anywhere.
    Then: `tunewheel project declare project.yaml`, and `tunewheel publish` as printed.
    """
    from tunewheel_contracts.errors import InvalidSpec

    from tunewheel_cli.commands.progress import reading_bar
    from tunewheel_cli.drafting.start import start

    with reporting(as_json=as_json):
        if output.exists() and not force:
            raise InvalidSpec(field="--output", reason=f"{output} exists; --force writes over it")
        with reading_bar(paths, silent=as_json) as note:
            started = start(paths, project=project, base_model=base_model, maps=map_ or (), on_bytes=note)
        output.write_text(started.text, "utf-8")
        (_print_json if as_json else _print)(started, output)


def _print_json(started: Started, output: Path) -> None:
    survey, choice = started.read.survey, started.draft.choice
    print_json(
        {
            "path": str(output),
            "project": started.project,
            "spec": started.draft.spec,
            "base": {"model": started.base.name, "why": started.base.why},
            "files": [
                {"path": str(one.path), "form": one.form, "maps": one.maps, "notes": one.notes}
                for one in started.read.files
            ],
            "documents": [str(path) for path in started.read.documents],
            "examples": survey.examples,
            "distinct": survey.distinct,
            "refused": survey.refused,
            "contradictions": survey.contradictions,
            "power": {"rows": choice.rows, "first": choice.first, "better": choice.better,
                      "decidable": choice.is_decidable},
            "cautions": started.draft.cautions,
            "next": started.commands(output),
        }
    )  # fmt: skip


def _print(started: Started, output: Path) -> None:
    read, choice = started.read, started.draft.choice
    for file in read.files:
        said = f"; {', '.join(file.maps)}" if file.maps else ""
        print(f"{file.path}: {file.form}{said}")
        for note in file.notes:
            print(f"  {note}")
    survey = read.survey
    counted = f"{survey.examples:,} examples, {survey.distinct:,} different questions"
    print(f"{counted}, {survey.refused:,} refused")
    print(f"base model: {started.base.name} ({started.base.why})")
    names = ", ".join(one["metric"] for one in choice.criteria)
    passed = f"on {choice.rows} held-out rows a good first model is passed in {choice.first:.0%} of cases"
    print(f"criteria: {names}; {passed}")
    print(f"wrote {output}. Next:")
    for command in started.commands(output):
        print(f"  {command}")
    for caution in started.draft.cautions:
        print(f"caution: {caution}", file=sys.stderr)
