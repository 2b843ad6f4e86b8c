"""plan: estimates memory, time and cost of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_planner.advice import Change, Consistency

from tunewheel_cli.exits import reporting

if TYPE_CHECKING:
    from tunewheel_contracts.formats.recipe import PreferenceSpec
    from tunewheel_contracts.formats.run import RunManifest
    from tunewheel_contracts.formats.spec import ProjectSpec
    from tunewheel_planner.advice import Advice
    from tunewheel_planner.shapes import ModelShape
    from tunewheel_verdicts.power import Power

    from tunewheel_cli.datasets.statistics import Measured
    from tunewheel_cli.datasets.versions import Version


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
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A file that is not published yet: its examples and tokens; may be repeated."),
    ] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="For --data, as for `tunewheel publish`.")
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
        int, typer.Option(min=1, help="Training examples, where there is no --data and no --dataset.")
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
    from tunewheel_cli.commands.planned import Shown, show, show_json
    from tunewheel_cli.planning import as_it_ran, calibrated_by

    def work() -> None:
        version, runs = _stored(dataset, store)
        project = _project(spec, version)
        name = model or (project.base_model if project else None)
        models, unplanned = _models(name, must=model is not None)
        preference = project.train.preference if project else None
        measured, source = _measured(version, preference), f"dataset version {dataset}"
        if data:
            measured, source = planning.of_files(data, map_ or [], project, name)
        answer = answer_tokens or max(1, tokens_per_example // 4)
        tokens = tokens_per_example + planning.passage_tokens(project)
        stats = measured.stats if measured else planning.stats_of(
            examples=examples, tokens=tokens, answer=answer, prompt=prompt_tokens
        )  # fmt: skip
        if measured is None:
            source = "an assumption; --data FILE reads yours, --examples and --tokens-per-example say others"
        answers = measured.pairs if measured and pairs is None else planning.pairs_of(
            pairs=pairs or examples, tokens=tokens, answer=answer
        )  # fmt: skip
        methods = method or ([project.train.method] if project else list(TrainMethod))
        recipes = [planning.recipe_of(project, m, epochs=epochs) for m in methods]
        offered = read_catalogue(devices) if devices else catalogue()
        found = [as_it_ran(one, runs) for one in planning.find_devices(device or [], offered)]
        power = _power(project, version, silent=as_json) if project is not None else None
        (show_json if as_json else show)(
            Shown(
                rows=list(planning.plan_all(models, recipes, found, stats, calibrated_by(runs), answers)),
                stats=stats,
                source=source,
                advice=_advice(knowledge_changes, consistency),
                priced=offered.as_of.isoformat(),
                measured=measured,
                unplanned=unplanned,
                cautions=_cautions(project, power) if project is not None and spec is not None else (),
                power=power,
            )
        )

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


def _models(name: str | None, *, must: bool) -> tuple[dict[str, ModelShape], str | None]:
    """Return the shapes to plan for; none, and why, for a spec's model that is unknown. ``must``: the model
    was asked for. Raises InvalidSpec (``base_model``)."""
    from tunewheel_contracts.errors import InvalidSpec

    from tunewheel_cli.planning import FROM_1B, find_shape

    if name is None:
        return FROM_1B, None
    try:
        return {name: find_shape(name)}, None
    except InvalidSpec as error:
        if must:
            raise
        return {}, error.reason


def _project(spec: Path | None, version: Version | None) -> ProjectSpec | None:
    if spec is not None:
        from tunewheel_cli.spec_file import read_spec

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
