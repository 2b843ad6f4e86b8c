"""The commands that try recipes on a dataset version before the wheel turns with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunewheel_cli.calling import (
    Call,
    InvalidOption,
    Project,
    Request,
    Unfinished,
    calling,
    completing,
    settle,
)
from tunewheel_cli.listing import facts, listing

if TYPE_CHECKING:
    from tunewheel_contracts.api.commands import SweepOrdered
    from tunewheel_contracts.api.runs import SweepDetail

Version = Annotated[
    str,
    typer.Option(
        "--dataset", help="The version to train on: its id, the beginning of it, or latest.",
        autocompletion=completing("datasets", "dataset_id"),
    ),
]  # fmt: skip
Hours = Annotated[
    float,
    typer.Option(
        help="Ceiling: hours of training, of all runs together. The estimate is asked first.", min=0
    ),
]
Dollars = Annotated[
    float | None, typer.Option(help="Ceiling in dollars, where the device has a price.", min=0)
]
Write = Annotated[
    Path | None, typer.Option(help="A project.yaml, into which the best recipe is written; comments stay.")
]
Wait = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait until it has ended; 0 does not wait.", min=0)
]

list_ = listing(
    "sweeps",
    "List the recipes of a project that were tried.",
    "{project} has tried no recipe",
    {
        "sweep": "sweep_id", "state": "state", "recipes": lambda one: len(one.runs) or None, "best": "best",
        "hours": lambda one: f"{one.hours:.2f} of {one.max_hours:g}", "dataset": "dataset_id",
        "since": "created_at", "why": "reason",
    },
    shorten=("why",),
)  # fmt: skip


@calling
def run(
    call: Call,
    project: Project,
    dataset: Version = "latest",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of `train` in the spec, such as learning_rate=1e-4."),
    ] = None,
    max_hours: Hours = 1.0,
    max_dollars: Dollars = None,
    write: Write = None,
    request: Request = None,
    timeout: Wait = 86_400.0,
) -> None:
    """Try one recipe: it is trained, measured on validation rows, and makes no model.

    Validation rows are taken from the version's training rows. Held-out rows are not read.
    """
    changes = {name: _value(text) for name, text in _assignments("--set", set_)}
    accepted = call.writer.sweeps.order(
        project, dataset_id=dataset, recipes=[changes], max_hours=max_hours, max_dollars=max_dollars,
        request=request,
    )  # fmt: skip
    _finish(call, project, accepted, timeout, write)


@calling
def sweep(
    call: Call,
    project: Project,
    over: Annotated[
        list[str], typer.Option(help="FIELD=VALUE,VALUE of `train` in the spec. Several are combined.")
    ],
    dataset: Version = "latest",
    method: Annotated[
        Literal["grid", "halving"],
        typer.Option(help="grid trains all to the end; halving goes on with the best third each time."),
    ] = "halving",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, the same for every recipe.")
    ] = None,
    max_hours: Hours = 1.0,
    max_dollars: Dollars = None,
    write: Write = None,
    request: Request = None,
    timeout: Wait = 86_400.0,
) -> None:
    """Try every combination of values, and compare them on validation rows. No recipe makes a model.

    Validation rows are taken from the version's training rows. Held-out rows are not read.
    """
    fixed = {name: _value(text) for name, text in _assignments("--set", set_)}
    varied = {name: [_value(one) for one in text.split(",")] for name, text in _assignments("--over", over)}
    recipes = [
        fixed | dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())
    ]
    accepted = call.writer.sweeps.order(
        project, dataset_id=dataset, recipes=recipes, method=method, max_hours=max_hours,
        max_dollars=max_dollars, request=request,
    )  # fmt: skip
    _finish(call, project, accepted, timeout, write)


@calling
def show(
    call: Call,
    sweep: Annotated[
        str,
        typer.Argument(
            help="Its id, the beginning of it, or latest.", autocompletion=completing("sweeps", "sweep_id")
        ),
    ],
    project: Project,
    write: Write = None,
) -> None:
    """Show what each recipe reached on the validation rows."""
    _show(call, call.client.sweeps.show(project, sweep), write)


def _finish(call: Call, project: str, accepted: SweepOrdered, timeout: float, write: Path | None) -> None:
    call.tell(f"{accepted.sweep_id}; `tunewheel run cancel {accepted.sweep_id}` ends it")
    try:
        done = settle(call, project, accepted, timeout)
    except Unfinished as error:
        raise Unfinished(f"{accepted.sweep_id} has not ended within {timeout:g} s; it goes on") from error
    if done is None:
        call.show(accepted, f"asked for; look with `tunewheel train show {accepted.sweep_id}`")
        return
    found = call.client.sweeps.show(project, accepted.sweep_id)
    _show(call, found, write)
    if found.state != "completed":
        raise typer.Exit(1)


def _show(call: Call, found: SweepDetail, write: Path | None) -> None:
    call.show(found, lambda: print_sweep(found))
    best = next((one for one in found.runs if one.run_id == found.best), None)
    if write is not None:
        if best is None:
            raise InvalidOption(f"--write: {found.sweep_id} has measured no recipe; {write} stays as it is")
        from tunewheel_cli.spec_file import write_recipe

        write_recipe(write, best.changes)
        call.tell(f"written to {write}: {changes_in_words(best.changes)}")


def print_sweep(found: SweepDetail) -> None:
    """Print the recipes, the best first."""
    from tunewheel_contracts.formats.sweep import by_labels, ranked

    from tunewheel_cli.texts import flat, print_facts, print_table

    columns = {
        "run": lambda one: f"{one.run_id}{' *' if one.run_id == found.best else ''}",
        "recipe": lambda one: changes_in_words(one.changes),
        "step": lambda one: f"{one.steps}/{one.total_steps}" if one.total_steps else "",
        "label accuracy": lambda one: _figure(one.label_accuracy, ".3f"),
        "validation loss": lambda one: _figure(one.validation_loss, ".4f"),
        "seconds": lambda one: _figure(one.seconds or None, ".0f"),
        "why": lambda one: f"{one.field} {one.reason}".strip(),
    }
    measured = ranked(found.runs)
    ordered = [*measured, *(one for one in found.runs if one not in measured)]
    print_table(
        [*columns], [[value for _, value in facts(one, columns)] for one in ordered], shorten=("why",)
    )
    print_facts(
        [
            ("sweep", found.sweep_id), ("state", found.state), ("method", found.method),
            ("validation rows", found.validation_examples), ("with a label", found.labelled_examples),
            ("training", f"{found.hours:.3f} of {found.max_hours:g} hours"),
            ("dollars", found.dollars), ("dataset", found.dataset_id),
            ("why", f"{found.field} {found.reason}".strip() or None),
        ]
    )  # fmt: skip
    if found.state == "completed" and found.best is not None:
        by = "label accuracy" if by_labels(measured) else "validation loss"
        print(f"* {flat(found.best)} has the best {by}{f': {found.lead.words}' if found.lead else ''}")


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def changes_in_words(changes: dict[str, Any]) -> str:
    """Return a recipe's changes as the options are written."""
    told = [f"{name}={one if isinstance(one, str) else json.dumps(one)}" for name, one in changes.items()]
    return " ".join(told) or "as in the spec"


def _assignments(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return name and text of each ``NAME=TEXT``. Raises InvalidOption for another form, and for a name that
    is given twice."""
    found = dict[str, str]()
    for one in given or ():
        name, equals, text = (part.strip() for part in one.partition("="))
        if not (name and equals and text):
            raise InvalidOption(f"{option}: {one!r} is not FIELD=VALUE")
        if name in found:
            raise InvalidOption(f"{option}: {name} is given twice")
        found[name] = text
    return [*found.items()]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
