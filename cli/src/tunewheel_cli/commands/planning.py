"""plan: estimates memory, time and cost of training."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_planner.advice import Change, Consistency

from tunewheel_cli.exits import print_json, reporting

if TYPE_CHECKING:
    from tunewheel_contracts.formats.plan import Interval
    from tunewheel_contracts.formats.recipe import PreferenceSpec
    from tunewheel_contracts.formats.run import RunManifest
    from tunewheel_contracts.formats.spec import ProjectSpec
    from tunewheel_planner.advice import Advice
    from tunewheel_verdicts.power import Power

    from tunewheel_cli.datasets.statistics import Measured
    from tunewheel_cli.datasets.versions import Version
    from tunewheel_cli.planning import Planned


_WIDEST = 300
"""A width, in columns, that every table of plans fits."""


def plan(
    spec: Annotated[Path | None, typer.Argument(help="A project's YAML: its model and its recipe.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id of a known model, or path of a config.json.", show_default="the spec's, or all"
        ),
    ] = None,
    method: Annotated[
        list[TrainMethod] | None,
        typer.Option(help="Only this method; may be repeated.", show_default="the spec's, or all"),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be repeated.", show_default="all")
    ] = None,
    devices: Annotated[
        Path | None,
        typer.Option(
            envvar="TUNEWHEEL_DEVICES",
            help="Your cards and prices, like the planner's devices.json.",
            show_default="the package's",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="A built version: its examples and, without a spec, its model and recipe."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="TUNEWHEEL_STORE_URL",
            help="Object store of versions, and of the earlier runs that correct a plan.",
            show_default="that of the folder",
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=1, help="Training examples, where there is no --dataset.")
    ] = 1000,
    tokens_per_example: Annotated[
        int,
        typer.Option(min=2, help="Tokens of an example, on average; passages of documents come on top."),
    ] = 400,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of these, tokens to learn.", show_default="a quarter")
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of the system prompt that all begin with.")
    ] = 0,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Preference pairs, where a recipe learns from some.",
            show_default="the --dataset's, or as many as examples",
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs.", show_default="the recipe's")] = None,
    knowledge_changes: Annotated[
        Change | None, typer.Option(help="How often facts change; with --consistency: fine-tune at all?")
    ] = None,
    consistency: Annotated[
        Consistency | None,
        typer.Option(help="How much equal answers to equal questions matter; with --knowledge-changes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say whether to fine-tune, and what memory, hours and dollars it takes; nothing is run or downloaded."""
    from tunewheel_planner.devices import catalogue, read_catalogue

    from tunewheel_cli import planning
    from tunewheel_cli.planning import as_it_ran, calibrated_by

    def work() -> None:
        version, runs = _stored(dataset, store)
        project = _project(spec, version)
        name = model or (project.base_model if project else None)
        models = {name: planning.find_shape(name)} if name else planning.FROM_1B
        preference = project.train.preference if project else None
        measured = _measured(version, preference)
        answer = answer_tokens or max(1, tokens_per_example // 4)
        tokens = tokens_per_example + planning.passage_tokens(project)
        stats = measured.stats if measured else planning.stats_of(
            examples=examples, tokens=tokens, answer=answer, prompt=prompt_tokens
        )  # fmt: skip
        answers = measured.pairs if measured and pairs is None else planning.pairs_of(
            pairs=pairs or examples, tokens=tokens, answer=answer
        )  # fmt: skip
        methods = method or ([project.train.method] if project else list(TrainMethod))
        recipes = [planning.recipe_of(project, m, epochs=epochs) for m in methods]
        offered = read_catalogue(devices) if devices else catalogue()
        found = [as_it_ran(one, runs) for one in planning.find_devices(device or [], offered)]
        rows = list(planning.plan_all(models, recipes, found, stats, calibrated_by(runs), answers))
        advice, priced = _advice(knowledge_changes, consistency), offered.as_of.isoformat()
        power = _power(project, version, silent=as_json) if project is not None else None
        warned = _cautions(project, power) if project is not None and spec is not None else ()
        show = _print_json if as_json else _print
        show(rows, advice, priced, measured, warned, power)

    partial(reporting, as_json=as_json)(work)()


def _stored(dataset: str | None, store: str | None) -> tuple[Version | None, list[RunManifest]]:
    """Return the dataset version, and the runs in ``store``. A folder that does not exist holds none."""
    from tunewheel_local.kafka.broker import run_async
    from tunewheel_local.places import Var
    from tunewheel_runtime.store import ObjectStore

    from tunewheel_cli.datasets.versions import open_version
    from tunewheel_cli.planning import read_runs

    var = Var.at()
    if store is None and dataset is None and not (var.root / "store").is_dir():
        return None, []
    url = store or var.store_url
    version = run_async(open_version(dataset, url)) if dataset else None
    return version, run_async(read_runs(ObjectStore(url)))


def _project(spec: Path | None, version: Version | None) -> ProjectSpec | None:
    if spec is not None:
        from tunewheel_cli.specs import read_spec

        return read_spec(spec)
    return version.manifest.spec if version else None


def _measured(version: Version | None, preference: PreferenceSpec | None) -> Measured | None:
    from tunewheel_local.kafka.broker import run_async

    from tunewheel_cli.datasets.statistics import training_stats

    return run_async(training_stats(version, preference)) if version else None


def _power(project: ProjectSpec, version: Version | None, *, silent: bool) -> Power:
    from tunewheel_local.kafka.broker import run_async

    from tunewheel_cli.datasets.versions import customers_of
    from tunewheel_cli.evaluations import last_scorecard
    from tunewheel_cli.power_tables import find_power

    if version is None:
        return find_power(project, silent=silent)
    card = run_async(last_scorecard(version.store, project.project))
    return find_power(project, run_async(customers_of(version)), card=card, silent=silent)


def _cautions(project: ProjectSpec, power: Power | None) -> tuple[str, ...]:
    """Return what ``declare`` would caution against, before there is a wheel to declare it to."""
    from tunewheel_cli.power_tables import power_cautions

    return (*project.cautions, *(power_cautions(power) if power else ()))


def _advice(changes: Change | None, consistency: Consistency | None) -> Advice | None:
    from tunewheel_local.connection import InvalidOption
    from tunewheel_planner.advice import advise

    if changes and consistency:
        return advise(changes, consistency)
    if changes or consistency:
        missing = "--consistency" if changes else "--knowledge-changes"
        raise InvalidOption(f"{missing} is missing: both questions decide together")
    return None


def _print_json(
    rows: list[Planned],
    advice: Advice | None,
    priced: str,
    measured: Measured | None,
    warned: tuple[str, ...],
    power: Power | None,
) -> None:
    from tunewheel_cli.power_tables import power_as_json

    tokens = {"tokenizer": measured.tokenizer, "estimated_because": measured.reason} if measured else None
    print_json(
        {
            "advice": advice.model_dump(mode="json") if advice else None,
            "prices_as_of": priced,
            "tokens": tokens,
            "plans": [row.as_json() for row in rows],
            "cautions": warned,
            "power": power_as_json(power) if power else None,
        }
    )


def _print(
    rows: list[Planned],
    advice: Advice | None,
    priced: str,
    measured: Measured | None,
    warned: tuple[str, ...],
    power: Power | None,
) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from tunewheel_cli.power_tables import power_lines

    console = Console(highlight=False)
    if advice:
        console.print(f"[bold]{advice.approach.value}[/]: {advice.reason}\n{_CHECKED}\n")
    table = Table(
        "model", "size", "method", "device", "needs", "of", "batch", "tok/s", "hours", "dollars", "",
        box=None, pad_edge=False,
    )  # fmt: skip
    for row in rows:
        table.add_row(*_cells(row))
    # Print the whole width even on a narrow terminal or to a file: a figure that is cut off would be wrong.
    needed = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    wide = Console(highlight=False, width=max(needed, console.width))
    with wide.capture() as held:
        wide.print(table)
    print("\n".join(line.rstrip() for line in held.get().splitlines()))
    console.print(
        "\nGB at the peak; * activations are recomputed. Ranges hold four runs of five. Prices are assumed "
        f"as of {priced}; --devices FILE gives yours."
    )
    for held in dict.fromkeys(_validation(row) for row in rows if row.plan.validation):
        console.print(held)
    whole = {_serving(row) for row in rows if not row.plan.method.traits.adapter}
    if len(whole) == 1:  # only if the plan is for a single model
        console.print(*whole)
    if measured and measured.tokenizer:
        console.print(f"The examples are counted in tokens of {measured.tokenizer}.")
    elif measured:
        console.print(f"The examples are estimated at four characters a token: {measured.reason}.")
    if corrected := sum(row.plan.calibrated_by > 0 for row in rows):
        console.print(f"{corrected} of {len(rows)} plans are corrected by what earlier runs took.")
    if not advice:
        console.print("Whether to fine-tune at all: --knowledge-changes and --consistency decide together.")
    if power:
        print("\n".join(("", *power_lines(power))))
    for caution in warned:
        print(f"caution: {caution}", file=sys.stderr)


_CHECKED = (
    "Where the spec has `retrieval:`, the scorecard of each run holds this against what was measured of base "
    "and tuned model, with passages and without: tunewheel run scorecard RUN."
)


def _validation(row: Planned) -> str:
    validation = row.plan.validation
    assert validation is not None
    return (
        f"{row.plan.method.value}: {validation.examples} examples are held back to validate on, every "
        f"{validation.every_steps} steps: {validation.share:.1%} of training, within the hours."
    )


def _serving(row: Planned) -> str:
    return (
        f"full: each version takes tunewheel-engine {4 * row.parameters / 1e9:.1f} GB of weights in float32, "
        "and a cache, beside the base; vLLM and TGI take an engine for each version."
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
