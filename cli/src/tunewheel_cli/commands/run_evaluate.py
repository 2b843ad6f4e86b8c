"""run evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, Request, Run, Timeout, calling, settle


@calling
def command(
    call: Call,
    run: Run,
    project: Project,
    criteria: Annotated[
        Path | None,
        typer.Option(help="YAML file with other criteria: the scorecard informs, and decides nothing."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Version whose held-out rows are used, where the run did not train on them.",
            show_default="the newest",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the request.")] = "",
    request: Request = None,
    timeout: Timeout = 1800.0,
) -> None:
    """Judge a run again, against whoever is in production now, by rows that it never saw."""
    from tunewheel_cli.scorecard_tables import print_evaluation
    from tunewheel_cli.spec_file import read_criteria

    wanted = read_criteria(criteria) if criteria is not None else ()
    accepted = call.writer.runs.evaluate(
        project, run, criteria=wanted, dataset_id=dataset, reason=reason, request=request
    )
    done = settle(call, project, accepted, timeout)
    if done is None:
        call.show(accepted, f"asked for; look with `tunewheel run scorecard {run} --project {project}`")
        return
    found = call.client.evaluations.show(project, done.led_to or "latest")
    call.show(found, lambda: print_evaluation(found))
