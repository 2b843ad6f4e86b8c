"""State from the log about projects and models: specs, routes, stages, scorecards, erasures, turns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from tunewheel_contracts import topics
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.evaluation import EvalPassed
from tunewheel_contracts.events.lifecycle import ServingDesired, Stage
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import InferenceCompleted, RolloutJudged
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_wheel.models import order_of, stage_after

from tunewheel_monitor.turns import facts
from tunewheel_monitor.turns.facts import TurnLog

TOPICS = (*facts.TOPICS, topics.ERASURE_REQUESTED)
"""The topics that ``Knowledge.apply`` folds."""
TRIED = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
UNKNOWN_KEPT = 10_000
"""How many unknown model ids are remembered. For a forgotten one the log is read again."""

E = TypeVar("E", bound=Event)


class Follower(Protocol):
    """A reader of the log that can be told to read to the current end."""

    async def refresh(self) -> None: ...


class Table(Follower, Protocol[E]):
    """The latest event of each project."""

    def get(self, key: str) -> Envelope[E] | None: ...

    def values(self) -> list[Envelope[E]]: ...


@dataclass(frozen=True, slots=True)
class Production:
    """The model in production. ``generation`` is that of the desired state that names it."""

    model_id: str
    dataset_id: str | None
    generation: int


def watches(drift: DriftSpec, production: Production | None, *, detector: str, family: str) -> bool:
    """Return whether a detector watches a project: none does if no trained model is in production."""
    trained = production is not None and production.dataset_id is not None
    return trained and drift.enabled and drift.asks_for(detector, family)


class Knowledge:
    """Folds ``TOPICS``. The order of topics does not matter, and applying an event twice changes nothing."""

    def __init__(self, declared: Table[ProjectDeclared], desired: Table[ServingDesired]) -> None:
        self.erasures = Erasures()
        self.turns = TurnLog()
        self.lifecycle: Follower | None = None
        """The reader that calls ``apply``, once it is set."""
        self._declared = declared
        self._desired = desired
        self._judged: set[tuple[str, str, str]] = set()
        self._holdouts: dict[tuple[str, str], tuple[int, int]] = {}
        self._calibrations: dict[tuple[str, str], Calibration] = {}
        self._unknown: dict[tuple[str, str, str], None] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event from the log."""
        self.turns.apply(envelope)
        self.erasures.apply(envelope)
        match envelope.data:
            case EvalPassed() as data:
                self._measure(data)
            case RolloutJudged() as data:
                self._judged.add((data.project, data.model_id, data.stage))
            case _:
                pass

    async def refresh(self) -> None:
        """Read stages, verdicts and erasures to the current end of the log.

        Raises:
            TransientError: the broker cannot be reached.
        """
        if self.lifecycle is not None:
            await self.lifecycle.refresh()

    async def spec(self, project: str) -> ProjectSpec | None:
        """Return the current spec. If none is known, read the log to its end first; None: there is none.

        Raises:
            TransientError: the broker cannot be reached.
        """
        if self._declared.get(project) is None:
            await self._look(project, "", "spec", self._declared)
        declared = self._declared.get(project)
        return declared.data.spec if declared else None

    def production(self, project: str) -> Production | None:
        """Return the model in production, as far as the log was read."""
        desired = self._desired.get(project)
        for route in desired.data.desired.routes if desired else ():
            if route.role is RouteRole.PRODUCTION:
                return Production(route.model_id, route.dataset_id, self.generation(project))
        return None

    def generation(self, project: str) -> int:
        """Return the generation of the desired state; 0: there is none."""
        desired = self._desired.get(project)
        return desired.data.generation if desired else 0

    def role_of(self, project: str, model_id: str) -> RouteRole | None:
        """Return the current role of a model in routing; None: it is not routed."""
        desired = self._desired.get(project)
        routes = desired.data.desired.routes if desired else ()
        return next((route.role for route in routes if route.model_id == model_id), None)

    async def learn(
        self, items: Sequence[InferenceScored | InferenceCompleted], *, generation: int = 0
    ) -> None:
        """Read the log to its end if traffic names a model or role that is not known here, once per model;
        also if a newer desired state (``generation``) was seen.

        Raises:
            TransientError: the broker cannot be reached.
        """
        for project, model_id, role in {(item.project, item.model_id, item.role) for item in items}:
            behind = self.generation(project) < generation
            if behind or self.role_of(project, model_id) is not role:
                await self._look(project, model_id, f"{role}{generation}", self._desired)

    def holdout(self, project: str, model_id: str) -> tuple[int, int] | None:
        """Return (invalid, total) answers of the model on its holdout; None: they were not measured."""
        return self._holdouts.get((project, model_id))

    def calibration(self, project: str, model_id: str) -> Calibration | None:
        """Return how often the model's labels are right by its confidence; None: that was not measured."""
        return self._calibrations.get((project, model_id))

    def steps(self, project: str, watched: Collection[str]) -> list[Envelope[Any]]:
        """Return the latest stage changes of the models on trial, in production, or ``watched``; oldest
        first."""
        steps = self.turns.entries(project).items()
        return sorted((s for m, s in steps if m in watched or self._is_tried(s)), key=order_of)

    def awaits_a_clock(self, spec: ProjectSpec, now: datetime) -> bool:
        """Return whether the project must be checked without traffic: it has an open turn, a trial or a
        guard, or an alarm of a detector that is switched off."""
        project = spec.project
        production = self.production(project)
        if self.turns.open(project) or not all(
            watches(spec.drift, production, detector=detector, family=family)
            for detector, family in self.turns.alarmed(project)
        ):
            return True
        guarded = timedelta(seconds=2 * spec.rollout.guard_seconds)
        return any(
            stage_after(step) is not Stage.PRODUCTION or now < step.time + guarded
            for step in self.steps(project, ())
        )

    def is_watched(self, spec: ProjectSpec) -> bool:
        """Return whether the project's traffic must be scored."""
        return spec.drift.enabled or self.awaits_a_clock(spec, datetime.now(UTC))

    def projects(self) -> list[str]:
        """Return the declared projects."""
        return [declared.project for declared in self._declared.values()]

    def _is_tried(self, step: Envelope[Any]) -> bool:
        stage = stage_after(step)
        return stage in TRIED and (step.project, step.data.model_id, stage.value) not in self._judged

    async def _look(self, project: str, model_id: str, what: str, table: Follower) -> None:
        key = (project, model_id, what)
        if key in self._unknown:
            return
        await table.refresh()
        await self._declared.refresh()
        await self.refresh()
        self._unknown[key] = None
        while len(self._unknown) > UNKNOWN_KEPT:
            del self._unknown[next(iter(self._unknown))]

    def _measure(self, data: EvalPassed) -> None:
        for contestant in data.contestants:
            metrics, model = contestant.metrics, (data.project, data.adapter.model_id)
            if contestant.role is Role.CANDIDATE and {"valid_output", "examples"} <= metrics.keys():
                total = round(metrics["examples"])
                valid = round(metrics["valid_output"] * total)
                self._holdouts[model] = (total - valid, total)
                if contestant.calibration_curve is not None:
                    self._calibrations[model] = contestant.calibration_curve
