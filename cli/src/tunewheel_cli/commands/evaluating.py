"""scorecard, eval, lm-eval: shows a run's evaluation, repeats it, and checks public tasks for it."""

from __future__ import annotations

import sys
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, Request, Store, reaching

if TYPE_CHECKING:
    from tunewheel_runtime.store import ObjectStore
    from tunewheel_verdicts.power import Power

    from tunewheel_cli.evaluations import Judged

Run = Annotated[str, typer.Argument(help="A run, such as run-0a1b2c….", show_default=False)]
Html = Annotated[
    Path | None, typer.Option("--html", help="File to write the page to; it needs no other host.")
]


@reaching
async def scorecard(
    reach: Reach,
    run: Run,
    evaluation: Annotated[
        str | None, typer.Option(help="Which evaluation of the run.", show_default="the last")
    ] = None,
    html: Html = None,
    store: Store = None,
) -> None:
    """Show how a run was judged: each criterion with its interval, and what was left out."""
    from tunewheel_runtime.store import ObjectStore

    from tunewheel_cli.evaluations import read_judged, read_page

    place = ObjectStore(store or reach.var.store_url)
    judged = await read_judged(place, run, evaluation)
    if html is not None:
        html.write_bytes(await read_page(place, judged))
    _show(judged, reach, html, await _power(place, judged, silent=reach.as_json))


@reaching
async def judge(
    reach: Reach,
    run: Run,
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
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for the scorecard.")
    ] = 1800.0,
    request: Request = None,
    store: Store = None,
) -> None:
    """Judge a run again, against whoever is in production now, by rows that it never saw."""
    from tunewheel_contracts.event import new_event
    from tunewheel_contracts.events.evaluation import EvalRequested
    from tunewheel_runtime.store import ObjectStore

    from tunewheel_cli.evaluations import judge_again, read_criteria, read_plan
    from tunewheel_cli.publishing.events import SOURCE

    wanted = read_criteria(criteria) if criteria is not None else ()
    place = ObjectStore(store or reach.var.store_url)
    with _waiting(silent=reach.as_json):
        first = await read_plan(place, run)
        data = EvalRequested(
            project=first.project, run_id=run, criteria=wanted, reason=reason,
            request=request or str(uuid.uuid4()), principal=reach.principal(), dataset_id=dataset,
        )  # fmt: skip
        event = new_event(data, source=SOURCE)
        judged = await judge_again(reach.client_options(), place, event, timeout_seconds=timeout_seconds)
    if judged is None:
        print(
            f"no scorecard within {timeout_seconds:g} s; the request stays on the log, and eval answers it "
            f"once it can: look with `tunewheel run scorecard {run}`",
            file=sys.stderr,
        )
        sys.exit(Exit.UNFINISHED)
    _show(judged, reach, None, await _power(place, judged, silent=reach.as_json))


@reaching
def lm_eval_tasks(
    reach: Reach,
    folder: Annotated[
        Path, typer.Argument(help="Folder of YAML and JSON Lines.", exists=True, file_okay=False)
    ],
) -> None:
    """Check the tasks of lm-evaluation-harness in a folder; print their hashes for evaluation.lm_eval."""
    from tunewheel_cli.evaluations import tasks_in

    found = tasks_in(folder)
    if reach.as_json:
        print_json(found)
    for one in () if reach.as_json else found:
        if "refused" in one:
            print(f"{one['task']}: refused: {one['refused']}")
            continue
        asked = "questions on the hub" if one["questions"] is None else f"{one['questions']} questions"
        print(f"{one['task']}: {asked}; {', '.join(one['figures'])}\n  sha256: {one['sha256']}")
    if any("refused" in one for one in found):
        sys.exit(Exit.REFUSED)


async def _power(store: ObjectStore, judged: Judged, *, silent: bool) -> Power | None:
    """Return what these rows can tell of the next candidate; None: nothing was measured, or the version is
    gone."""
    from tunewheel_cli.datasets.versions import UnknownDataset, open_version
    from tunewheel_cli.power_tables import find_power

    card = judged.scorecard
    try:
        version = await open_version(card.dataset_id, store.url) if card.findings else None
    except UnknownDataset:
        return None
    return find_power(version.manifest.spec, card=card, silent=silent) if version else None


def _show(judged: Judged, reach: Reach, html: Path | None, power: Power | None) -> None:
    from tunewheel_cli.power_tables import power_as_json, power_lines

    if reach.as_json:
        told = {"power": power_as_json(power) if power else None}
        plan: dict[str, Any] = judged.plan.model_dump(mode="json")
        print_json({"plan": plan, "scorecard": judged.scorecard.model_dump(mode="json"), **told})
        return
    from tunewheel_cli.scorecard_tables import print_scorecard

    print_scorecard(judged)
    if power is not None:
        print("The next candidate, judged by rows like these:", *power_lines(power), sep="\n")
    if html is not None:
        print(f"page: {html}")


def _waiting(*, silent: bool) -> AbstractContextManager[Any]:
    if silent or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(file=sys.stderr).status("eval judges …")
