"""run scorecard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, InvalidOption, Project, Run, calling


@calling
def command(
    call: Call,
    run: Run,
    project: Project,
    evaluation: Annotated[
        str | None, typer.Option(help="Which evaluation of the run.", show_default="the last")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="File to write the page to; it needs no other host.")
    ] = None,
) -> None:
    """Show how a run was judged: each criterion with its interval, and what was left out."""
    from tunewheel_client import NotFound

    from tunewheel_cli.scorecard_tables import print_evaluation

    if html is not None and evaluation is not None:
        raise InvalidOption("--html: is the page of the last verdict; leave --evaluation out")

    of_run = call.client.runs.show(project, run)
    if evaluation is None and not of_run.evaluations:
        raise NotFound(f"run: {of_run.run_id} is not judged yet; `tunewheel status` says whether eval runs")
    found = call.client.evaluations.show(project, evaluation or of_run.evaluations[0])
    if html is not None:
        html.write_text(call.client.runs.scorecard(project, of_run.run_id), "utf-8")
    call.show(found, lambda: print_evaluation(found))
    if html is not None:
        call.tell(f"page: {html}")
