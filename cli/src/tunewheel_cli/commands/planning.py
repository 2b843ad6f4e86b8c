"""plan: estimates memory, time and cost of training."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_planner.advice import Change, Consistency

from tunewheel_cli.calling import Call, calling, named_project

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import Power
    from tunewheel_contracts.formats.dataset import DatasetManifest
    from tunewheel_contracts.formats.run import RunManifest
    from tunewheel_contracts.formats.spec import ProjectSpec
    from tunewheel_planner.advice import Advice
    from tunewheel_planner.shapes import ModelShape


@calling
def plan(
    call: Call,
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
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of a machine that train one run together.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines of so many GPUs that train together.")] = 1,
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
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            callback=named_project,
            show_default="the spec's",
            help="The project of --dataset, and of the earlier runs that correct a plan.",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A file that is not published yet: its examples and tokens; may be repeated."),
    ] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="For --data, as for `tunewheel publish`.")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training examples, where there is no --data and no --dataset.", show_default="1000"
        ),
    ] = None,
    tokens_per_example: Annotated[
        int,
        typer.Option(min=2, help="Tokens of an example, on average; passages of documents come on top."),
    ] = 400,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of these, tokens to learn.", show_default="a quarter")
    ] = None,
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
        Change | None, typer.Option(help="How often facts change; with --consistency: fine-tune?")
    ] = None,
    consistency: Annotated[
        Consistency | None,
        typer.Option(help="How much equal answers to equal questions matter; with --knowledge-changes."),
    ] = None,
) -> None:
    """Say whether to fine-tune, and what memory, hours and dollars it takes; nothing is run or downloaded."""
    from tunewheel_planner.devices import catalogue, read_catalogue

    from tunewheel_cli import planning
    from tunewheel_cli.commands.planned import Shown, show, show_json
    from tunewheel_cli.datasets.statistics import training_stats
    from tunewheel_cli.planning import as_it_ran, calibrated_by

    drafted = _spec(spec)
    manifest = _version(call, dataset, project or (drafted.project if drafted else None))
    planned = drafted or (manifest.spec if manifest else None)
    runs = _earlier(call, project or (planned.project if planned else None))
    name = model or (planned.base_model if planned else None)
    models, unplanned = _models(name, must=model is not None)
    measured, source = (
        None,
        "an assumption; --data FILE reads yours, --examples and --tokens-per-example say others",
    )
    if manifest is not None:
        preference = planned.train.preference if planned else None
        measured, source = (
            training_stats(call.client, manifest, preference),
            f"dataset version {manifest.dataset_id}",
        )
    if data:
        measured, source = planning.of_files(data, map_ or [], planned, name)
    answer = answer_tokens or max(1, tokens_per_example // 4)
    tokens = tokens_per_example + planning.passage_tokens(planned)
    stats = measured.stats if measured else planning.stats_of(
        examples=examples or 1000, tokens=tokens, answer=answer
    )  # fmt: skip
    answers = measured.pairs if measured and pairs is None else planning.pairs_of(
        pairs=pairs or examples or 1000, tokens=tokens, answer=answer
    )  # fmt: skip
    counted = stats.examples if measured or examples is not None else None
    methods = method or ([planned.train.method] if planned else list(TrainMethod))
    recipes = [planning.recipe_of(planned, m, epochs=epochs) for m in methods]
    offered = read_catalogue(devices) if devices else catalogue()
    found = [as_it_ran(one, runs) for one in planning.find_devices(device or [], offered)]
    power = _power(call, planned, manifest) if planned is not None else None
    (show_json if call.as_json else show)(
        Shown(
            rows=list(
                planning.plan_all(
                    models, recipes, found, stats, calibrated_by(runs), answers, gpus=gpus, nodes=nodes
                )
            ),
            stats=stats,
            source=source,
            advice=_advice(knowledge_changes, consistency, counted),
            priced=offered.as_of.isoformat(),
            measured=measured,
            unplanned=unplanned,
            cautions=offered.cautions(date.today())
            + (_cautions(drafted, power) if drafted is not None else ()),
            power=power,
        )
    )


def _spec(file: Path | None) -> ProjectSpec | None:
    from tunewheel_cli.spec_file import read_spec

    return read_spec(file) if file is not None else None


def _version(call: Call, dataset: str | None, project: str | None) -> DatasetManifest | None:
    if dataset is None:
        return None
    return call.client.datasets.show(call.project_or_default(project), dataset).manifest


def _earlier(call: Call, project: str | None) -> list[RunManifest]:
    """Return the project's latest runs. A plan needs no wheel: without a wheel there are none."""
    from tunewheel_client import ClientError, NoAddress, NotFound

    from tunewheel_cli.planning import read_runs

    if project is None:
        return []
    try:
        return read_runs(call.client, project)
    except (NoAddress, NotFound):
        return []
    except ClientError as error:
        call.tell(f"no earlier run corrects the plan: {error}")
        return []


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


def _power(call: Call, planned: ProjectSpec, manifest: DatasetManifest | None) -> Power:
    from tunewheel_client import NotFound

    from tunewheel_cli.datasets.exporting import rows_of
    from tunewheel_cli.power_tables import find_power

    if manifest is None:
        return find_power(planned, silent=call.as_json)
    sizes = Counter(row.group for row in rows_of(call.client, manifest, "holdout"))
    try:
        card = call.client.evaluations.show(manifest.project, "latest").scorecard
    except NotFound:
        card = None
    told = card if card is not None and card.contestants else None
    return find_power(planned, tuple(sizes.values()), card=told, silent=call.as_json)


def _cautions(project: ProjectSpec, power: Power | None) -> tuple[str, ...]:
    """Return what ``declare`` would caution against, before there is a wheel to declare it to."""
    from tunewheel_verdicts.power import cautions_of

    return (*project.cautions, *(cautions_of(power) if power else ()))


def _advice(changes: Change | None, consistency: Consistency | None, examples: int | None) -> Advice | None:
    from tunewheel_local.connection import InvalidOption
    from tunewheel_planner.advice import advise

    if changes and consistency:
        return advise(changes, consistency, examples)
    if changes or consistency:
        missing = "--consistency" if changes else "--knowledge-changes"
        raise InvalidOption(f"{missing} is missing: both questions decide together")
    return None
