"""``tunewheel plan``: estimates training on every device, before anything is downloaded or rented, and
corrects the estimates by earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidSpec, first_complaint
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.connection import InvalidOption
from tunewheel_planner.calibration import REMEMBERED, Calibration, Correction, key
from tunewheel_planner.devices import GIB, Catalogue, Device
from tunewheel_planner.plan import DatasetStats, can_shard, hold_back, make_plan
from tunewheel_planner.shapes import KNOWN, USUAL, ModelShape, shape_of

if TYPE_CHECKING:
    from tunewheel_client import Client

    from tunewheel_cli.datasets.statistics import Measured

ENOUGH = 3_500_000_000
"""Parameters from which a base is called 4B."""
FROM_1B = {name: KNOWN[name] for name in USUAL}
"""The models of a plan that names none: 1B to 70B."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One line of the table."""

    model: str
    parameters: int
    plan: TrainPlan

    def as_json(self) -> dict[str, Any]:
        return {"model": self.model, "parameters": self.parameters, **self.plan.model_dump(mode="json")}


def find_shape(name: str) -> ModelShape:
    """Return the shape of the model with the hub id ``name``, or in the directory or ``config.json`` at
    ``name``.

    Raises InvalidSpec (``base_model``).
    """
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise InvalidSpec(
            field="base_model",
            reason=f"{name!r} is no known model and no file; give --model the path of its config.json, or "
            f"one of {len(KNOWN)} known ones, such as {', '.join(USUAL)}",
        )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidSpec(field="base_model", reason=f"{path} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise InvalidSpec(field="base_model", reason=f"{path} holds no JSON object; give a config.json")
    return shape_of(config)


def find_devices(names: Sequence[str], devices: Catalogue) -> tuple[Device, ...]:
    """Return the devices of ``devices`` called ``names``; all devices if ``names`` is empty. Raises
    InvalidOption."""
    if not names:
        return devices.devices
    found: list[Device] = []
    for name in names:
        device = devices.named(name)
        if device is None:
            raise InvalidOption(f"--device {name}: take one of {', '.join(d.name for d in devices.devices)}")
        found.append(device)
    return tuple(found)


def stats_of(*, examples: int, tokens: int, answer: int) -> DatasetStats:
    """Return statistics of ``examples`` with ``tokens`` on average, of which ``answer`` tokens have a loss.

    The longest example is assumed to have twice the average. Raises InvalidOption.
    """
    if not 0 < answer < tokens:
        raise InvalidOption(f"--answer-tokens {answer}: must be between 1 and --tokens-per-example {tokens}")
    return DatasetStats(
        examples=examples, tokens=examples * tokens, longest=2 * tokens, learnt=examples * answer
    )  # fmt: skip


def of_files(
    paths: Sequence[Path], maps: Sequence[str], spec: ProjectSpec | None, base_model: str | None
) -> tuple[Measured, str]:
    """Return the token counts of the examples in the files at ``paths`` that train, and what they are of.

    Raises SourceUnusable, InvalidOption.
    """
    from tunewheel_cli.drafting.files import read_all
    from tunewheel_cli.surveying.tokens import measure

    survey = read_all(paths, maps=maps).survey
    if not survey.examples:
        raise InvalidOption("--data: holds no examples; give a file of answered questions")
    found = measure(survey, base_model, task=spec.task if spec is not None else None)
    held = spec.dataset.holdout_fraction if spec is not None else 0.0
    share = max(1, round(found.stats.examples * (1 - held))) / found.stats.examples
    stats = replace(
        found.stats,
        examples=round(share * found.stats.examples),
        tokens=round(share * found.stats.tokens),
        learnt=round(share * found.stats.learnt),
    )
    pairs = None
    if survey.rejected:
        mean = max(2, round(found.stats.mean))
        pairs = pairs_of(pairs=survey.rejected, tokens=mean, answer=max(1, stats.learnt // stats.examples))
    said = f", of which {held:.0%} are held out" if held else ""
    source = f"{', '.join(map(str, paths))} has {survey.examples:,}{said}"
    return replace(found, stats=stats, pairs=pairs), source


def passage_tokens(spec: ProjectSpec | None) -> int:
    """Return the most tokens of passages in a training prompt, as counted by the index; 0: it has none."""
    retrieval = spec.retrieval if spec is not None else None
    if retrieval is None or retrieval.training is None:
        return 0
    passages = 1 + retrieval.training.distractors
    return min(retrieval.budget_tokens, passages * retrieval.passage_tokens)


def pairs_of(*, pairs: int, tokens: int, answer: int) -> DatasetStats:
    """Return statistics of ``pairs``. Each of their conversations is as long as an example of
    ``stats_of``."""
    return DatasetStats(
        examples=pairs, tokens=2 * pairs * tokens, longest=2 * tokens, learnt=2 * pairs * answer,
        sequences=2 * pairs,
    )  # fmt: skip


def recipe_of(spec: ProjectSpec | None, method: TrainMethod, **changes: Any) -> TrainSpec:
    """Return the spec's recipe, or the default one, with ``method`` and ``changes``. Raises InvalidOption."""
    written = spec.train.model_dump(mode="json", exclude_unset=True) if spec else {}
    wanted = {name: value for name, value in changes.items() if value is not None}
    try:
        return TrainSpec.model_validate(written | wanted | {"method": method})
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidOption(f"train.{field} {reason}") from error


def plan_all(
    models: dict[str, ModelShape],
    recipes: Sequence[TrainSpec],
    devices: Sequence[Device],
    stats: DatasetStats,
    calibration: Calibration = Calibration(),
    pairs: DatasetStats | None = None,
    *,
    gpus: int = 1,
    nodes: int = 1,
) -> Iterator[Planned]:
    """Yield a plan for every model, method and device, corrected by earlier runs. ``stats``: of all examples.
    ``pairs``: of the answers for preference training. ``gpus``: of each of ``nodes``. They divide the base if
    it does not fit one of them."""
    corrections = {recipe.method: calibration.corrections(recipe.method) for recipe in recipes}
    for name, shape in models.items():
        for recipe in recipes:
            for device in devices:
                correction = corrections[recipe.method].get(key(device.name, shape.parameters), Correction())
                together = gpus * nodes if device.kind == "cuda" else 1
                planned = partial(
                    make_plan, shape, hold_back(stats, recipe), recipe, device, pairs=pairs, download=True,
                    correction=correction, processes=together, nodes=nodes if together > 1 else 1,
                )  # fmt: skip
                plan = planned()
                if not plan.fits and together > 1 and can_shard(recipe):
                    plan = planned(shards=together)
                yield Planned(name, shape.parameters, plan)


def recommended(rows: Sequence[Planned]) -> tuple[Planned, str] | None:
    """Return the row to begin with, and the reason; None: none fits.

    A base of 4B or more is preferred, because smaller ones need higher rates and more examples
    (docs/training.md). ``full`` is left out where an adapter fits. Of the others, the cheapest is taken.
    """
    fitting = [row for row in rows if row.plan.fits and row.plan.dollars is not None]
    if not fitting:
        return None
    adapters = [row for row in fitting if row.plan.method.traits.adapter] or fitting
    large = [row for row in adapters if row.parameters >= ENOUGH] or adapters
    smallest = min(row.parameters for row in large)
    candidates = [row for row in large if row.parameters == smallest]
    best = min(candidates, key=lambda row: (row.plan.dollars or row.plan.hours).expected)
    bases = len({row.model for row in rows})
    base = "" if bases == 1 else "the smallest base of 4B or more; "
    others = (
        f"the cheapest of {len(candidates)} ways that fit"
        if len(candidates) > 1
        else "the only way that fits"
    )
    slower = "" if best.plan.method.traits.adapter else "; no adapter is among the methods asked for"
    return best, f"{base}{others}{slower}"


def read_runs(client: Client, project: str) -> list[RunManifest]:
    """Return the manifests of the project's latest runs, oldest first, without those that are gone.

    Raises ClientError: the wheel does not answer.
    """
    from tunewheel_client import NotFound

    found: list[RunManifest] = []
    for run in client.runs.list(project, state="completed", limit=REMEMBERED).items:
        with suppress(NotFound):
            found.append(client.runs.manifest(project, run.run_id))
    return found[::-1]


def calibrated_by(runs: Sequence[RunManifest]) -> Calibration:
    """Return the calibration that the train service would have after ``runs``."""
    calibration = Calibration()
    for run in runs:
        calibration.learn(run.plan, run.usage)
    return calibration


def as_it_ran(device: Device, runs: Sequence[RunManifest]) -> Device:
    """Return a processor with the memory and the speed of the last run's. Any other device stays as it is."""
    for run in reversed(runs) if device.kind == "cpu" else ():
        plan = run.plan
        if plan is not None and plan.device == device.name and plan.teraflops is not None:
            return device.model_copy(
                update={
                    "memory_gib": plan.processes * plan.available_bytes / GIB,
                    "teraflops": plan.processes * plan.teraflops,
                    "bfloat16": run.dtype == "bfloat16",
                }
            )
    return device
