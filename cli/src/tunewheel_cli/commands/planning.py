"""plan: what training would take."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.planning.advice import Change, Consistency

from tunewheel_cli.exits import print_json, told

if TYPE_CHECKING:
    from tunewheel_contracts.formats.plan import Interval
    from tunewheel_contracts.planning.advice import Advice

    from tunewheel_cli.planning import Planned


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    spec: Annotated[Path | None, typer.Argument(help="A project's YAML: its model and its recipe.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id of a known model, or path of a config.json; all from 1B to 70B."),
    ] = None,
    method: Annotated[list[TrainMethod] | None, typer.Option(help="Repeatable; all without it.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Repeatable; all without it.")] = None,
    devices: Annotated[
        Path | None,
        typer.Option(
            envvar="TUNEWHEEL_DEVICES",
            help="Your cards and prices, like planning/devices.json.",
            show_default="the package's",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Training examples.")] = 1000,
    tokens_per_example: Annotated[int, typer.Option(min=2, help="On average.")] = 400,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Of an example's tokens, those to learn.")] = 100,
    prompt_tokens: Annotated[int, typer.Option(min=0, help="The system prompt that all begin with.")] = 0,
    epochs: Annotated[float | None, typer.Option(help="Else the recipe's.")] = None,
    knowledge_changes: Annotated[Change | None, typer.Option(help="How often facts change.")] = None,
    consistency: Annotated[
        Consistency | None, typer.Option(help="How much equal answers to equal questions matter.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say whether to fine-tune, and what memory, hours and dollars it takes; nothing is run or downloaded."""
    from tunewheel_contracts.planning.devices import catalogue, read_catalogue

    from tunewheel_cli import planning

    def work() -> None:
        project = None
        if spec is not None:
            from tunewheel_cli.specs import read_spec

            project = read_spec(spec)
        name = model or (project.base_model if project else None)
        models = {name: planning.find_shape(name)} if name else planning.FROM_1B
        stats = planning.stats_of(
            examples=examples, tokens=tokens_per_example, answer=answer_tokens, prompt=prompt_tokens
        )
        methods = method or ([project.train.method] if project else list(TrainMethod))
        recipes = [planning.recipe_of(project, m, epochs=epochs) for m in methods]
        known = read_catalogue(devices) if devices else catalogue()
        rows = list(planning.plan_all(models, recipes, planning.find_devices(device or [], known), stats))
        advice, priced = _advice(knowledge_changes, consistency), known.as_of.isoformat()
        _print_json(rows, advice, priced) if as_json else _print(rows, advice, priced)

    partial(told, as_json=as_json)(work)()


def _advice(changes: Change | None, consistency: Consistency | None) -> Advice | None:
    from tunewheel_contracts.planning.advice import advise

    from tunewheel_cli.connection import InvalidOption

    if changes and consistency:
        return advise(changes, consistency)
    if changes or consistency:
        missing = "--consistency" if changes else "--knowledge-changes"
        raise InvalidOption(f"{missing} is missing: both questions decide together")
    return None


def _print_json(rows: list[Planned], advice: Advice | None, priced: str) -> None:
    print_json(
        {
            "advice": advice.model_dump(mode="json") if advice else None,
            "prices_as_of": priced,
            "plans": [row.as_json() for row in rows],
        }
    )


def _print(rows: list[Planned], advice: Advice | None, priced: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if advice:
        console.print(f"[bold]{advice.approach.value}[/]: {advice.reason}\n")
    table = Table(
        "model", "size", "method", "device", "needs", "of", "batch", "tok/s", "hours", "dollars", "",
        box=None, pad_edge=False,
    )  # fmt: skip
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    console.print(
        "\nGB at the peak; * activations are recomputed. Ranges hold four runs of five. Prices are assumed "
        f"as of {priced}; --devices FILE gives yours."
    )


def _cells(row: Planned) -> list[str]:
    plan = row.plan
    colour = "green" if plan.fits else "red"
    cost = [_range(plan.tokens_per_second, ",.0f"), _range(plan.hours, ".2f")] if plan.fits else ["", ""]
    dollars = _range(plan.dollars, ".2f") if plan.fits and plan.dollars else ""
    micro = f"{plan.micro_batch_size}{'*' if plan.gradient_checkpointing else ''}"
    return [
        row.model.rpartition("/")[2], f"{row.parameters / 1e9:.2f}B", plan.method.value, plan.device,
        f"[{colour}]{plan.peak_bytes / 1e9:.1f}[/]", f"{plan.available_bytes / 1e9:.0f}", micro, *cost,
        dollars, plan.advice.rpartition(": ")[2],
    ]  # fmt: skip


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}}-{interval.high:{form}}"
