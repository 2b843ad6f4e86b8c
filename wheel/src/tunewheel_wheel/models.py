"""The stages of one project's models, in the order of the registry's generations.

The clocks of two registries differ, so the time of a step decides nothing where a generation is known.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from itertools import groupby

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ModelRolledback, Stage

Step = Envelope[ModelPromoted] | Envelope[ModelRolledback]
STEPS = (ModelPromoted, ModelRolledback)
"""The events that are steps."""


def order_of(step: Step) -> tuple[int, datetime, str]:
    """Return the sort key of a registry's steps. Earlier releases wrote no generation: their steps come
    first."""
    return step.data.generation or 0, step.time, step.id


def stage_after(step: Step) -> Stage:
    """Return the stage to which ``step`` brought its model."""
    return step.data.stage if isinstance(step.data, ModelPromoted) else Stage.ROLLED_BACK


class Models:
    """Folds the registry's events. Their order does not matter, and applying one twice changes nothing."""

    def __init__(self) -> None:
        self.registrations: dict[str, Envelope[ModelRegistered]] = {}
        """By model, the first."""
        self._steps: dict[str, dict[str, Step]] = {}
        """By model and event id."""
        self._been: defaultdict[Stage, set[str]] = defaultdict(set)
        """By stage: the models that are, or were, in it."""
        self.entries: dict[str, Step] = {}
        """By model that made a step: the step that brought the model to its present stage, not a later step
        within that stage."""

    def register(self, event: Envelope[ModelRegistered]) -> None:
        first = self.registrations.get(event.data.model_id, event)
        self.registrations[event.data.model_id] = min(first, event, key=lambda one: (one.time, one.id))

    def move(self, step: Step) -> None:
        steps = self._steps.setdefault(step.data.model_id, {})
        steps[step.id] = min(steps.get(step.id, step), step, key=order_of)
        self._been[stage_after(step)].add(step.data.model_id)
        for _, of_one_stage in groupby(self.steps(step.data.model_id), key=stage_after):
            self.entries[step.data.model_id] = next(of_one_stage)

    def steps(self, model_id: str) -> list[Step]:
        """Return the steps of a model after its registration, latest last."""
        return sorted(self._steps.get(model_id, {}).values(), key=order_of)

    @property
    def latest(self) -> dict[str, Step]:
        """Return the latest step of each model that made one, latest last."""
        steps = (max(steps.values(), key=order_of) for steps in self._steps.values())
        return {step.data.model_id: step for step in sorted(steps, key=order_of)}

    @property
    def stages(self) -> dict[str, Stage]:
        """Return the stage of each model that made a step, the latest moved last."""
        return {model_id: stage_after(step) for model_id, step in self.latest.items()}

    def been_in(self, stage: Stage) -> set[str]:
        """Return the models that are, or were, in ``stage``."""
        return self._been[stage]
