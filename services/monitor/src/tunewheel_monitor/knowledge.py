"""What the log says of models: which are on trial, what their scorecards saw, what was already judged."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalPassed
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.production import DriftDetected, RolloutJudged
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.criteria import Metric
from tunewheel_contracts.formats.scorecard import Role

from tunewheel_monitor.rollout import Trial

TRIAL_STAGES: dict[Stage, Literal["shadow", "canary"]] = {Stage.SHADOW: "shadow", Stage.CANARY: "canary"}
AFTER_TRIAL = {Stage.PRODUCTION, Stage.RETIRED, Stage.REJECTED, Stage.ROLLED_BACK}


class Knowledge:
    """Folds lifecycle, verdicts and the monitor's own events. The order of topics does not matter."""

    def __init__(self) -> None:
        self.trials: dict[tuple[str, str], Trial] = {}
        """Open trials by (project, model id); one model is in one stage."""
        self.said: set[str] = set()
        """Ids of the drift.detected events that are on the log."""
        self.erasures = Erasures()
        self._steps: dict[tuple[str, str], dict[Stage, datetime]] = {}
        self._judged: set[tuple[str, str, str]] = set()
        self._scores: dict[tuple[str, str], tuple[int, int]] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Take one event from the log; a second time changes nothing."""
        match envelope.data:
            case ModelPromoted() as data:
                self._move(envelope, data.to_stage)
            case ModelRolledback():
                self._move(envelope, Stage.ROLLED_BACK)
            case EvalPassed() as data:
                self._score(data)
            case RolloutJudged() as data:
                self.close_trial(data.project, data.model_id, data.stage)
            case ErasureRequested():
                self.erasures.apply(envelope)
            case DriftDetected():
                self.said.add(envelope.id)
            case _:
                pass

    def close_trial(self, project: str, model_id: str, stage: str) -> None:
        """Note that a stage is judged: it will not be judged again."""
        self._judged.add((project, model_id, stage))
        trial = self.trials.get((project, model_id))
        if trial is not None and trial.stage == stage:
            del self.trials[project, model_id]

    def recount(self) -> None:
        """Set the counts of all trials to zero: their traffic is about to be read again."""
        for trial in self.trials.values():
            trial.recount()

    def trials_of(self, project: str) -> list[Trial]:
        return [trial for (owner, _), trial in self.trials.items() if owner == project]

    def has_trial(self, project: str, model_id: str, stage: str) -> bool:
        """Tell whether the stage is open or was: False means that its start has not been read yet."""
        return Stage(stage) in self._steps.get((project, model_id), {})

    def in_production_since(self, project: str, model_id: str) -> datetime | None:
        return self._steps.get((project, model_id), {}).get(Stage.PRODUCTION)

    def holdout_validity(self, project: str, model_id: str) -> tuple[int, int] | None:
        """Return (invalid, total) outputs of the model on its holdout, None where nothing was measured."""
        return self._scores.get((project, model_id))

    def _move(self, envelope: Envelope[Any], to_stage: Stage) -> None:
        data = envelope.data
        key = (data.project, data.model_id)
        steps = self._steps.setdefault(key, {})
        if to_stage in steps:
            return
        steps[to_stage] = envelope.time
        stage = TRIAL_STAGES.get(to_stage)
        if stage is None:
            if to_stage in AFTER_TRIAL:
                self.trials.pop(key, None)
        elif not AFTER_TRIAL & steps.keys() and (*key, stage) not in self._judged:
            self.trials[key] = Trial(*key, stage, envelope.time, envelope.correlation_id)

    def _score(self, data: EvalPassed) -> None:
        for contestant in data.contestants:
            metrics = contestant.metrics
            if (
                contestant.role is Role.CANDIDATE
                and {Metric.VALID_OUTPUT.value, "examples"} <= metrics.keys()
            ):
                total = round(metrics["examples"])
                valid = round(metrics[Metric.VALID_OUTPUT.value] * total)
                self._scores[data.project, data.adapter.model_id] = (total - valid, total)
