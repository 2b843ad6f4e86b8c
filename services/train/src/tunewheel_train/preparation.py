"""Prepares a run before its model is loaded: token ids, validation examples, and the plan."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.plan import TrainPlan, ValidationPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.task_spec import TaskSpec
from tunewheel_outputs.reward import reward_parts
from tunewheel_planner.calibration import Correction, key
from tunewheel_planner.devices import Device, catalogue, read_catalogue
from tunewheel_planner.memory import Precision
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.shapes import shape_of, text_config
from tunewheel_planner.validation import FEWEST, MOST, count_steps, most_validated, plan_validation

from tunewheel_train.data.datasets import (
    Encoded,
    Limits,
    Refused,
    encode_examples,
    read_examples,
    token_stats,
)
from tunewheel_train.data.packing import shared_prefix
from tunewheel_train.data.preferences import (
    EncodedPair,
    demand_enough,
    desirable,
    encode_answers,
    encode_pairs,
    no_pairs,
    none_left,
    read_negatives,
    read_pairs,
)
from tunewheel_train.data.prompts import Prompt, prompts_of
from tunewheel_train.data.schedule import REHEARSAL, rehearse
from tunewheel_train.data.validation import carve
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.model.machine import this_device
from tunewheel_train.model.sharding import shards_of
from tunewheel_train.progress import Message, Planned, Warned

if TYPE_CHECKING:
    from tunewheel_basemodel.locate import BaseModel

Report = Callable[[Message], None]


@dataclass(frozen=True)
class Prepared:
    """Training data, validation data with its schedule, and the base model's ``config.json``."""

    examples: Sequence[Encoded]
    validation: Sequence[Encoded]
    pairs: Sequence[EncodedPair]
    config: Mapping[str, Any]
    validating: ValidationPlan | None = None
    spared_steps: int = 0
    prompts: Sequence[Prompt] = ()
    """For ``train.reward``: the training examples whose prompts are answered; else empty."""
    validation_prompts: Sequence[Prompt] = ()
    """The validation rows that are answered: for ``train.reward``, and for a recipe that is tried on a task
    with labels."""


def prepare(base: BaseModel, job: Job, report: Report) -> Prepared:
    """Read and encode the data of ``job``. Raises RunFailed."""
    from tunewheel_basemodel.chat import with_variables

    from tunewheel_train.model.modeling import load_tokenizer

    recipe = job.recipe
    tokenizer = with_variables(load_tokenizer(base), job.chat_template_kwargs)
    config: dict[str, Any] = json.loads((base.path / "config.json").read_text())
    limits = limits_of(config, tokenizer)
    rows = read_examples(job.train_path)
    examples, refused = encode_examples(rows, tokenizer, max_tokens=recipe.max_tokens, limits=limits)
    _warn(report, "examples", refused, len(rows))
    to_learn = _to_learn(examples, job)
    held_back = _to_measure if job.tried or job.rewarded else _held_back
    training, validation, validating = held_back(to_learn, recipe)
    everything = training if to_learn is examples else _held_back(examples, recipe)[0]
    spared = _steps_on(everything, recipe) - _steps_on(training, recipe)
    pairs = _told_apart(job, training, tokenizer, limits, report) if recipe.preference else []
    asked: tuple[list[Prompt], list[Prompt]] = [], []
    if job.rewarded:
        asked = _to_reward(job, training, validation, rows, limits.context)
    elif job.tried and job.tried.task:
        asked = [], _to_label(job.tried.task, validation, rows, limits.context, report)
    return Prepared(training, validation, pairs, config, validating, spared, *asked)


def _to_reward(
    job: Job,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    rows: Sequence[Mapping[str, Any]],
    context: int | None,
) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts that ``train.reward`` asks, and all of the validation rows: what a reward spoils may
    show on rows that it does not reward. Left out are prompts beside which the longest answer does not fit
    into ``context``. Raises RunFailed if they are too few."""
    assert job.rewarded is not None
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        reason = f"is trained by one process, and {count} train this run; set TUNEWHEEL_TRAIN_PROCESSES=1"
        raise RunFailed(field="train.reward", reason=reason)
    parts = reward_parts(job.rewarded.metrics, job.rewarded.task)
    by_id = {str(row["example_id"]): row for row in rows}
    training, validation = [_with_room(some, job.rewarded.task, context) for some in (training, validation)]
    prompts = prompts_of(training, by_id, parts) if parts else []
    validated = prompts_of(validation, by_id, {})
    scored = sum(any(s is not None for s in one.scores(one.expected, parts).values()) for one in validated)
    if min(len(prompts), scored) < FEWEST:
        raise RunFailed(
            field="train.reward",
            reason=f"needs {FEWEST} training rows whose own answers meet "
            f"{', '.join(parts) or 'a criterion of single answers'}, and {FEWEST} validation rows to which "
            "that applies, with room for task.max_output_tokens in the context, but there are "
            f"{len(prompts)} and {scored}; publish more examples, or change train.validation_fraction",
        )
    return prompts, validated


def _to_label(
    task: TaskSpec,
    validation: Sequence[Encoded],
    rows: Sequence[Mapping[str, Any]],
    context: int | None,
    report: Report,
) -> list[Prompt]:
    """Return the prompts of the validation rows that have a label; none if they are too few to compare
    recipes by."""
    by_id = {str(row["example_id"]): row for row in rows}
    labels = reward_parts(["label_accuracy"], task)
    found = prompts_of(_with_room(validation, task, context), by_id, labels)
    if len(found) >= FEWEST:
        return found
    reason = f"is measured by loss alone: {len(found)} validation rows have a label, and {FEWEST} are needed"
    report(Warned(reason=reason))
    return []


def _with_room(examples: Sequence[Encoded], task: TaskSpec, context: int | None) -> list[Encoded]:
    """Return the examples beside whose prompt the longest answer fits into ``context``."""
    most = math.inf if context is None else context - task.max_output_tokens
    return [example for example in examples if example.mask.index(1) <= most]


def _steps_on(examples: Sequence[Encoded], recipe: TrainSpec) -> int:
    return count_steps(len(examples), batch_size=recipe.batch_size, epochs=recipe.epochs)


def _to_learn(examples: Sequence[Encoded], job: Job) -> Sequence[Encoded]:
    """Return what the champion has not learned from, and a sample of the rest; without a champion all."""
    if job.learnt_path is None:
        return examples
    learnt = {str(row["example_id"]) for row in read_examples(job.learnt_path)}
    share = REHEARSAL if job.recipe.rehearsal is None else job.recipe.rehearsal
    return rehearse(examples, learnt, share=share, seed=job.recipe.seed) or examples


def _held_back(
    examples: Sequence[Encoded], recipe: TrainSpec
) -> tuple[Sequence[Encoded], Sequence[Encoded], ValidationPlan | None]:
    """Return (training examples, validation examples, schedule). If validation would say too little or cost
    too much, all examples are trained on."""
    training, validation = carve(
        examples, fraction=recipe.validation_fraction, most=most_validated(len(examples), recipe),
        seed=recipe.seed,
    )  # fmt: skip
    validating = plan_validation(
        examples=len(validation), tokens=sum(map(len, validation)),
        trained_tokens=sum(map(len, training)) * recipe.epochs,
        steps=_steps_on(training, recipe), recipe=recipe,
    )  # fmt: skip
    return (training, validation, validating) if validating else (examples, [], None)


def _to_measure(
    examples: Sequence[Encoded], recipe: TrainSpec
) -> tuple[Sequence[Encoded], Sequence[Encoded], ValidationPlan]:
    """Return the same for a recipe that is tried or has a reward: nothing else measures it, so the cost of
    validation does not reduce the rows. Raises RunFailed if there are too few of them."""
    training, validation = carve(
        examples, fraction=recipe.validation_fraction, most=MOST, seed=recipe.seed
    )  # fmt: skip
    if len(validation) < FEWEST:
        raise RunFailed(
            field="train.validation_fraction",
            reason=f"{recipe.validation_fraction} of {len(examples)} examples leaves {len(validation)} "
            f"validation rows, and a recipe is measured on {FEWEST} or more; raise it",
        )
    steps = _steps_on(training, recipe)
    cost = sum(map(len, validation)) / (2 * recipe.epochs * sum(map(len, training)))
    every = recipe.checkpoint_steps
    return training, validation, ValidationPlan(
        examples=len(validation), every_steps=every, times=-(-steps // every), share=-(-steps // every) * cost
    )  # fmt: skip


def _told_apart(
    job: Job, examples: Sequence[Encoded], tokenizer: Any, limits: Limits, report: Report
) -> list[EncodedPair]:
    """Return the data of preference training: pairs, and for ``kto`` also answers that were rated down. If
    there are only such answers, the examples serve as the desirable ones."""
    recipe = job.recipe
    assert recipe.preference is not None
    paired = job.preferences_path is not None
    unpaired = recipe.preference.method.traits.unpaired and job.negatives_path is not None
    if not paired and not unpaired:
        raise no_pairs(negatives=job.negatives_path is not None)
    pairs: list[EncodedPair] = []
    if job.preferences_path is not None:
        rows = read_pairs(job.preferences_path)
        pairs, refused = encode_pairs(rows, tokenizer, max_tokens=recipe.max_tokens, limits=limits)
        _warn(report, "preference pairs", refused, len(rows))
    if unpaired and job.negatives_path is not None:
        rows = read_negatives(job.negatives_path)
        negatives, refused = encode_answers(rows, tokenizer, max_tokens=recipe.max_tokens, limits=limits)
        if not paired and not negatives:
            raise none_left(refused, len(rows), "answers rated down")
        _warn(report, "answers rated down", refused, len(rows))
        pairs += negatives if paired else [*negatives, *map(desirable, examples)]
    demand_enough(pairs, recipe.preference.method)
    return pairs


def limits_of(config: Mapping[str, Any], tokenizer: Any) -> Limits:
    """Return the model's limits, from its config and its tokenizer."""
    told = text_config(config)
    unknown = tokenizer.unk_token_id
    # A byte-level vocabulary has every character. Its "unknown" token is another special token.
    if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        unknown = None
    return Limits(
        context=told.get("max_position_embeddings"), vocabulary=told.get("vocab_size"), unknown=unknown
    )


def _warn(report: Report, what: str, refused: Sequence[Refused], total: int) -> None:
    if refused:
        first = refused[0]
        report(
            Warned(
                reason=f"{len(refused)} of {total} {what} are not trained on; "
                f"{first.example_id} {first.reason}"
            )
        )


def follow_plan(job: Job, prepared: Prepared, precision: Precision, report: Report) -> Job:
    """Plan ``job`` on this machine, report the plan, and return the job with the planned values. A model
    whose shape the formulas do not cover gets a warning instead of a plan."""
    from tunewheel_train.trainers.handover import from_first

    device = this_device(precision, read_catalogue(job.devices) if job.devices else catalogue())
    try:
        plan = make(prepared, job, device, precision)
    except InvalidSpec as error:
        report(Warned(reason=f"is trained without a plan: {error}"))
        job = job.model_copy(update={"limit_hours": job.recipe.max_hours})
        return job if job.gradient_checkpointing is not None else _with(job, checkpointing=False)
    # all processes must decide the same, but each has measured its own processor
    plan = TrainPlan.model_validate(from_first(plan.model_dump(mode="json")))
    report(Planned(plan=plan))
    job = job.model_copy(update={"limit_hours": affordable_hours(job, plan)})
    if job.gradient_checkpointing is not None:
        return job
    recipe = job.recipe.model_copy(update={"micro_batch_size": plan.micro_batch_size})
    return _with(job.model_copy(update={"recipe": recipe}), checkpointing=plan.gradient_checkpointing)


def affordable_hours(job: Job, plan: TrainPlan) -> float | None:
    """Return the most hours that the run may be trained; None: it has no ceiling. Raises RunFailed if the
    estimate is above a ceiling: of the run, or of all runs that its sweep still has to train."""
    recipe, tried = job.recipe, job.tried
    left, spent = (tried.left, tried.spent_hours) if tried else (1.0, 0.0)
    limits: list[float] = []
    for name, expected in (("max_hours", plan.hours), ("max_dollars", plan.dollars)):
        ceiling: float | None = getattr(recipe, name)
        if ceiling is None or expected is None:
            continue
        per_hour = expected.expected / plan.hours.expected
        limits.append(ceiling / per_hour)
        if expected.expected * left > ceiling - spent * per_hour:
            unit = name.removeprefix("max_")
            raise RunFailed(
                field=f"train.{name}",
                reason=f"is {ceiling - spent * per_hour:.3g}, but the estimate is "
                f"{expected.expected * left:.3g} {unit}; {_RAISE[tried is not None]}",
            )
    return min(limits, default=None)


_RAISE = {
    False: "raise it, or let `tunewheel run resume` train the run without a ceiling",
    True: "raise the ceiling of the sweep, or try fewer recipes",
}
"""What to do about a ceiling, by whether the run is of a sweep."""


def over_limit(job: Job, step: int, total_steps: int) -> RunFailed:
    """Return the failure of a run that has been trained for ``limit_hours``."""
    assert job.limit_hours is not None
    hours, dollars = job.recipe.max_hours, job.recipe.max_dollars
    name = "max_hours" if dollars is None or hours == job.limit_hours else "max_dollars"
    return RunFailed(
        field=f"train.{name}", step=step, total_steps=total_steps,
        reason=f"was reached after {job.limit_hours:.3g} hours of training; {_RAISE[job.tried is not None]}",
    )  # fmt: skip


def _with(job: Job, *, checkpointing: bool) -> Job:
    return job.model_copy(update={"gradient_checkpointing": checkpointing})


def make(prepared: Prepared, job: Job, device: Device, precision: Precision) -> TrainPlan:
    """Return the plan of ``job``: memory and time of each process. Raises InvalidSpec for a model whose shape
    the formulas do not cover."""
    shape, recipe = shape_of(prepared.config), job.recipe
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return make_plan(
        shape, _of_examples(prepared, job), recipe, device, precision=precision,
        pairs=_of_pairs(prepared.pairs) if prepared.pairs else None,
        correction=job.corrections.get(key(device.name, shape.parameters), Correction()),
        processes=processes, shards=shards_of(recipe, sharding=job.sharding, processes=processes),
    )  # fmt: skip


def _of_examples(prepared: Prepared, job: Job) -> DatasetStats:
    stats = token_stats(prepared.examples)
    prefix = shared_prefix(prepared.examples) if job.packed and job.recipe.dropout == 0.0 else 0
    return DatasetStats(
        examples=stats.examples, tokens=stats.tokens, longest=stats.longest, learnt=stats.assistant,
        prefix=prefix, validation=prepared.validating,
    )  # fmt: skip


def _of_pairs(pairs: Sequence[EncodedPair]) -> DatasetStats:
    """Return the statistics of pairs for a plan. A micro-batch holds both answers of each pair."""
    stats = token_stats([side for pair in pairs for side in pair.sides()])
    return DatasetStats(
        examples=len(pairs), tokens=stats.tokens, longest=stats.longest, learnt=stats.assistant,
        sequences=stats.examples,
    )  # fmt: skip
