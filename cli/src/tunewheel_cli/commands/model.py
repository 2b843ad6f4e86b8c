"""The commands about models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.calling import Call, Model, Project, Request, Timeout, calling, settle
from tunewheel_cli.listing import facts, listing
from tunewheel_cli.texts import flat, print_table, printable

if TYPE_CHECKING:
    from tunewheel_contracts.api.models import ModelDetail

list_ = listing(
    "models",
    "List the registered models of a project, and the stage of each.",
    "{project} has no such model",
    {
        "model": "model_id", "kind": "kind", "stage": "stage.value",
        "answers": lambda one: (
            (f"{one.role} {one.percent} %" if one.role else "") + (" pinned" if one.pinned else "")
        ),
        "since": "since", "run": "run_id",
        "base": lambda one: f"{one.base.name} at {one.base.revision.removeprefix('sha256:')[:12]}",
    },
    shorten=("base",),
    stage=Annotated[str | None, typer.Option(help="Only models in this stage, such as production.")],
)  # fmt: skip


FACTS = {
    "model": "model_id", "kind": "kind", "stage": "stage.value",
    "answers": lambda one: f"{one.role} {one.percent} %" if one.role else None,
    "pinned": lambda one: "yes" if one.pinned else None,
    "base": lambda one: f"{one.base.name} at {one.base.revision}",
    "licence": lambda one: one.base_facts and one.base_facts.license,
    "parameters": lambda one: one.base_facts and one.base_facts.parameters,
    "context": lambda one: one.base_facts and one.base_facts.context_length,
    "template": lambda one: one.base_facts and one.base_facts.chat_template_sha256,
    "run": "run_id", "dataset": "dataset_id", "evaluation": "evaluation_id",
    "figures": lambda one: "withheld: a review of answers is open" if one.withheld else None,
}  # fmt: skip


@calling
def show(call: Call, model: Model, project: Project) -> None:
    """Show a model: its stages, what it was trained on, and its figures."""
    found = call.client.models.show(project, model)
    call.show(found, lambda: _print_model(found))


def _print_model(found: ModelDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    print_facts(facts(found, FACTS))
    for check in found.checks:
        print(f"  {check.outcome or ('met' if check.passed else 'missed'):9} {flat(check.reason)}")
    for step in found.history:
        print(f"  {flat(step.at)}  {step.stage.value}: {flat(step.reason)}")


@calling
def card(call: Call, model: Model, project: Project) -> None:
    """Print a model's card: Markdown with metadata in YAML, as the Hugging Face hub has them."""
    text = call.client.models.card(project, model)
    call.show({"model_id": model, "card": text}, lambda: print(printable(text), end=""))


@calling
def compare(
    call: Call,
    first: Model,
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    project: Project,
) -> None:
    """Show what changed from one model to another: data, recipe, criteria, figures, what serves."""
    found = call.client.models.compare(project, first, second)
    call.show(found, lambda: print_comparison(found))


Reason = Annotated[str, typer.Option(help="Why; it is kept with the model.", show_default=False)]


class Remaining(StrEnum):
    """The model that answers all traffic after ``stop``."""

    CHAMPION = "champion"
    BASE = "base"


@calling
def promote(
    call: Call, model: Model, project: Project, reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Even what was not judged, or did not pass.")
    ] = False,
    request: Request = None, timeout: Timeout = 30.0,
) -> None:  # fmt: skip
    """Put a model into production at once, whomever it was compared with."""
    _order(call, "promote", model, project, reason, request, timeout, force=force)


@calling
def stop(
    call: Call, project: Project, reason: Reason,
    to: Annotated[
        Remaining, typer.Option("--to", help="Who answers everything from now on.")
    ] = Remaining.CHAMPION,
    request: Request = None, timeout: Timeout = 30.0,
) -> None:  # fmt: skip
    """Send all traffic of a project to its champion or its bare base at once: no trial, no copy, nobody else,
    until `model unpin`."""
    _order(call, "stop", to.value, project, reason, request, timeout)
    call.tell(f"others come back by `tunewheel model unpin {to.value} --project {project} --reason WHY`")


def _command(action: str, about: str) -> Callable[..., Any]:
    def order(
        call: Call, model: Model, project: Project, reason: Reason,
        request: Request = None, timeout: Timeout = 30.0,
    ) -> None:  # fmt: skip
        _order(call, action, model, project, reason, request, timeout)

    order.__doc__ = about
    return calling(order)


rollback = _command(
    "rollback",
    "Take a model out of traffic; from production the champion before it takes over, or the base.",
)
pin = _command("pin", "Keep production with the model that is in it: whoever passes waits.")
unpin = _command("unpin", "Let others into production again; the newest of those who wait goes on.")
retire = _command("retire", "Take a model out in good order; only a command brings it back.")
reject = _command("reject", "Take a version out for good.")


def _order(
    call: Call, action: str, model: str, project: str, reason: str, request: str | None, timeout: float,
    **more: Any,
) -> None:  # fmt: skip
    told = {name: value for name, value in more.items() if value not in (None, False)}
    accepted = getattr(call.writer.models, action)(project, model, reason=reason, request=request, **told)
    command = settle(call, project, accepted, timeout)
    call.show(command or accepted, f"{action} of {model} in {project}: {'done' if command else 'asked for'}")


SHOWN = 60


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print the registry's answer to ``GET …/models/{first}/comparison/{second}``."""
    print(f"first: {found['first']}, second: {found['second']}")
    metrics = [
        (name, one["first"], one["second"], one["repeat_spread"] and f"± {one['repeat_spread']:.3g}")
        for name, one in found["metrics"].items()
    ]
    print_table(("metric", "first", "second", "between two measurements of one model"), metrics)
    if not found["same_holdout"]:
        print("the figures are of different held-out rows: their difference says little")
    for one in found["direct"]:
        print(
            f"  {one['metric']}: {one['difference']:+.3g} for the second, row by row "
            f"({one['low']:+.3g} … {one['high']:+.3g}, {one['rows']} rows in {one['clusters']} groups)"
        )
    dataset = found["dataset"]
    print(f"data: {' → '.join(map(_word, dataset['datasets']))}")
    if dataset["records_added"] is not None:
        added, removed = dataset["records_added"], dataset["records_removed"]
        print(f"  {added} records are new, {removed} are gone from training")
    for title, changes in (
        ("examples by label", dataset["labels"]), ("counts", dataset["counts"]), ("recipe", found["recipe"]),
        ("criteria", found["criteria"]), ("what serves", found["bundle"]),
        ("rest of the spec", dataset["spec"]),
    ):  # fmt: skip
        if changes:
            rows = [(name, _word(one), _word(other)) for name, (one, other) in changes.items()]
            print_table((title, "first", "second"), rows)
    for name, reason in found["missing"].items():
        print(f"{flat(name)} cannot be read: {flat(reason)}")


def _word(value: Any) -> str:
    text = "" if value is None else flat(str(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
