"""Recipes that are tried on a dataset version. Nothing that a sweep trains becomes a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from tunewheel_contracts.errors import InvalidSpec, first_complaint
from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, NonNegative, Slug
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.reading import at_door

MOST_RECIPES = 64
NOT_TRIED = {
    "preference": "only the training on examples is tried",
    "reward": "only the training on examples is tried",
    "continue_from": "every recipe is trained from nothing",
    "rehearsal": "every recipe is trained from nothing",
    "priority": "runs of a turn go first",
    "max_hours": "give the ceiling of the whole sweep",
    "max_dollars": "give the ceiling of the whole sweep",
}
"""Fields of a recipe that a sweep does not change, each with the reason."""
OF_ROWS = ("validation_fraction", "seed", "max_tokens")
"""Fields that decide which rows validate. They must be the same in all recipes of a sweep."""
HELD_BACK = 0.2
"""The share of the training groups that validates. Turns hold back less, since they must not lose rows."""
Changes = Annotated[dict[str, JsonValue], Field(max_length=32)]
"""Fields of the recipe by name, with other values than the spec has."""


class SweepMethod(StrEnum):
    GRID = "grid"
    HALVING = "halving"


class SweepState(StrEnum):
    TRAINING = "training"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TriedRun(Frozen):
    """One recipe of a sweep, and how far it came."""

    run_id: Slug
    changes: Changes
    part: Fraction = 0.0
    """The part of its steps after which it was measured last; 0: it was not measured yet."""
    steps: Annotated[int, Field(ge=0)] = 0
    total_steps: Annotated[int, Field(ge=0)] = 0
    validation_loss: FiniteFloat | None = None
    """The best mean loss per learnt token over the validation rows."""
    label_accuracy: Fraction | None = None
    """The share of the labelled validation rows whose greedy answer has the expert's label; null: the task
    has no labels, or too few of these rows have one."""
    seconds: NonNegative = 0.0
    """Seconds of training, and of answering the validation rows."""
    gpu_hours: NonNegative = 0.0
    """The same in hours, if it was a GPU that trained; several GPUs of one run count once."""
    dollars: NonNegative | None = None
    """null: the device has no price."""
    field: str = ""
    """The field to correct, if the run failed."""
    reason: str = ""


class Lead(Frozen):
    """By how much the label accuracy of the best recipe exceeds that of the second, on the same rows."""

    over: Slug
    """The second run."""
    part: Fraction
    """The part of their steps after which both were measured. With halving it is less than 1."""
    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    """The ends of the 95 % interval of ``difference``. Rows of a group count as one observation."""

    @property
    def words(self) -> str:
        """Say the lead, and whether the rows suffice to tell the two apart."""
        after = "" if self.part == 1 else f" after {self.part:.0%} of the steps"
        unsure = "" if self.low > 0 else ": these rows cannot tell which of both is better"
        return (
            f"{self.difference:+.3f} label accuracy over {self.over}{after} "
            f"(95 % interval {self.low:+.3f} to {self.high:+.3f}){unsure}"
        )


def changed_recipe(recipe: TrainSpec, changes: Mapping[str, Any]) -> TrainSpec:
    """Return the recipe that is tried: ``recipe`` with ``changes``, trained from nothing on examples alone.

    Raises:
        InvalidSpec: a field is unknown, is not tried, or has a wrong value; named as ``train.<field>``.
    """
    for name in changes:
        if name in NOT_TRIED:
            raise InvalidSpec(field=f"train.{name}", reason=f"is not tried: {NOT_TRIED[name]}; leave it out")
        if name not in TrainSpec.model_fields:
            known = ", ".join(sorted(TrainSpec.model_fields.keys() - NOT_TRIED.keys()))
            raise InvalidSpec(field=f"train.{name}", reason=f"is no field of a recipe; name one of {known}")
    if recipe.preference is not None and recipe.preference.alone:
        raise InvalidSpec(
            field="train.preference.alone", reason="trains on pairs alone, but examples are tried"
        )
    fields = recipe.model_dump(exclude=set(NOT_TRIED))
    try:
        return TrainSpec.model_validate(
            {**fields, "validation_fraction": HELD_BACK, **changes}, context=at_door()
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidSpec(field=f"train.{field}", reason=reason) from error


def demand_comparable(recipes: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidSpec if two recipes are the same, or if they would be measured on other rows."""
    for name in OF_ROWS:
        if any(one.get(name) != recipes[0].get(name) for one in recipes):
            raise InvalidSpec(
                field=f"train.{name}",
                reason="decides which rows validate, so recipes that differ in it cannot be compared; give "
                "all recipes the same",
            )
    seen: list[Mapping[str, Any]] = []
    for one in recipes:
        if one in seen:
            raise InvalidSpec(field="recipes", reason=f"has {dict(one)} twice; give each recipe once")
        seen.append(one)


def by_labels(measured: Sequence[TriedRun]) -> bool:
    """Return whether runs that were measured are compared by label accuracy: all have it. A sweep that an
    earlier release began may have runs without it."""
    return all(run.label_accuracy is not None for run in measured)


def ranked(runs: Sequence[TriedRun]) -> list[TriedRun]:
    """Return the runs that were measured and did not fail, the best first: those that were trained furthest,
    among them by label accuracy if all runs have it, and where that is equal by validation loss."""
    measured = [run for run in runs if run.validation_loss is not None and not run.reason]
    labelled = by_labels(measured)

    def place(run: TriedRun) -> tuple[float, float, float, str]:
        assert run.validation_loss is not None
        right = (run.label_accuracy or 0.0) if labelled else 0.0
        return -run.part, -right, run.validation_loss, run.run_id

    return sorted(measured, key=place)
