"""The rest of the wheel beside the monitor's fold and curate's policy, on a clock of its own: experts who
answer in working hours, training that takes two hours, a registry. Nothing here decides anything that a
service decides."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.events.data import DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.turns import LabelsRequested, TurnDecided
from tunewheel_contracts.topics import BY_NAME
from tunewheel_monitor.fold import Facts, fold, follow, tick
from tunewheel_monitor.knowledge import Production
from tunewheel_monitor.state import ProjectState
from tunewheel_monitor.turns.facts import TurnLog
from tunewheel_testing.adapters import BASE, SHA, adapter_of, artifact
from tunewheel_testing.specs import spec_of
from tunewheel_turns.deciding import Step, decide
from tunewheel_turns.dispatch import tell
from tunewheel_turns.facts import TurnFacts

from .traffic import DAYS, INTENTS, NEW, START, Model, Traffic

REF = artifact()
CANARY_PERCENT = 30
HOUR = timedelta(hours=1)

SPEC = spec_of(rollout={"canary": {"percent": CANARY_PERCENT}})


@dataclass
class Month:
    """Runs the month; ``told`` is its log."""

    traffic: Traffic = field(default_factory=Traffic)
    days: int = DAYS
    experts_from: datetime = START
    """Nobody labels earlier."""
    lost_runs: int = 0
    """So many runs lose their GPU, the first ones."""
    told: list[Envelope[Any]] = field(default_factory=list[Any])
    votes: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(2 * DAYS)])
    """By day: thumbs down, all thumbs, as they came."""
    waited: set[Step] = field(default_factory=set[Step])
    """What curate waited for on the way."""
    decided: list[TurnDecided] = field(default_factory=list[TurnDecided])
    """What curate decided, hour by hour."""

    def __post_init__(self) -> None:
        self._now = START
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._state = ProjectState()
        self._turns, self._facts = TurnLog(), TurnFacts()
        self._labelled: dict[str, int] = {}
        self._models: dict[str, Model] = {}
        self._canary: Model | None = None
        self._steps: dict[str, Envelope[Any]] = {}
        self._champion = self._first_version()
        self._generation = 1

    def run(self) -> None:
        """Go through the month hour by hour."""
        while self._now < START + timedelta(days=self.days):
            follow(self._state, facts := self._known())
            for item in self.traffic.hour(
                self._now,
                self._champion,
                canary=self._canary,
                percent=CANARY_PERCENT,
                alarms=self._turns.clusters("desk"),
            ):
                if item.of == "rating":
                    self.votes[(item.at - START).days][0] += item.rating == "down"
                    self.votes[(item.at - START).days][1] += 1
                for said in fold(self._state, item, facts):
                    self.tell(said.data, at=item.at)
            self._now += HOUR
            while self._due and self._due[0][0] <= self._now:
                heapq.heappop(self._due)[2]()
            for said in tick(self._state, "desk", self._known(), self._now):
                self.tell(said.data)
            self._decide()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event.data for event in self.told if isinstance(event.data, kind)]

    def say(self, topic: str, cause: Envelope[Any] | None = None, /, **fields: Any) -> Envelope[Any]:
        return self.tell(BY_NAME[topic].event.model_validate({"project": "desk"} | fields), cause=cause)

    def tell(
        self, data: Event, *, at: datetime | None = None, cause: Envelope[Any] | None = None
    ) -> Envelope[Any]:
        """Put an event on the log; who listens, hears it."""
        event = new_event(data, source="/month", cause=cause, time=at or self._now)
        self.told.append(event)
        self._turns.apply(event)
        self._facts.apply(event)
        match data:
            case LabelsRequested():
                when = _next_working_morning(max(event.time, self.experts_from))
                self._later(when, lambda: self._experts_answer(data))
            case RolloutJudged():
                self._later(self._now, lambda: self._judged(event))
            case _:
                pass
        return event

    def _known(self) -> Facts:
        champion = self._champion
        return Facts(
            spec=SPEC,
            production=Production(champion.model_id, champion.dataset_id, self._generation),
            coverage=champion.coverage.facts,
            holdout=(2, 100),
            steps=list(self._steps.values()),
            turns=self._turns.open("desk"),
        )

    def _first_version(self) -> Model:
        model = self.traffic.train("desk-1", "ds-1", range(INTENTS))
        self._models[model.model_id] = model
        return model

    def _later(self, at: datetime, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._count), act))

    def _experts_answer(self, wanted: LabelsRequested) -> None:
        """Experts answer the prompts that have an answer, those of the new intent; to spam there is none."""
        asked = [self.traffic.asked.get(name) for name in wanted.completion_ids]
        if asked.count(NEW) > len(asked) / 2:
            self._labelled[wanted.alarm_id] = asked.count(NEW)

    def _decide(self) -> None:
        state = self._facts.state(SPEC, self._labelled)
        decision = decide(state, self._now)
        self.waited.add(decision.step)
        self.decided.append(tell(state, decision, "desk", self._now))
        if decision.step is Step.TURN:
            told = {"request": decision.request, "alarm_ids": decision.alarms}
            upto = {"0": len(self.told)}
            self._turn(self.say("dataset.requested", reason="drift", records_upto=upto, **told))

    def _turn(self, request: Envelope[DatasetRequested]) -> None:
        """Build, train, judge and bring to canary, three hours after the request."""
        number = len(self._models) + 1
        intents = [*range(INTENTS), *([NEW] if any(self._labelled.values()) else [])]
        model = self.traffic.train(f"desk-{number}", f"ds-{number}", intents)
        self._models[model.model_id] = model
        counts = {"records": 640, "examples": 640, "train": 600, "holdout": 40}
        version: dict[str, Any] = {
            "dataset_id": model.dataset_id, "manifest": REF, "spec_sha256": SPEC.sha256,
            "criteria_sha256": SHA, "base_model": "org/tiny", "counts": counts, "funnel": (),
        }  # fmt: skip
        self._later(
            self._now + HOUR, lambda: self._train(self.say("dataset.versioned", request, **version), model)
        )

    def _train(self, version: Envelope[DatasetVersioned], model: Model) -> None:
        run = {"run_id": f"run-{model.model_id}", "dataset_id": model.dataset_id}
        made = run | {"dataset": REF, "adapter": adapter_of(model.model_id), "criteria_sha256": SHA}
        self.say("train.started", version, **run, base=BASE, method="lora", total_steps=9)

        def lost() -> None:
            self.say("train.failed", version, **run, field="device", reason="the GPU was lost", completed=0.5)

        if self.lost_runs:
            self.lost_runs -= 1
            self._later(self._now + HOUR, lost)
            return

        def done() -> None:
            costs = {"final_loss": 1.0, "tokens": 9, "wall_seconds": 7_200.0}
            self.say("train.completed", version, **made, manifest=REF, **costs)
            self.say("eval.passed", version, **made, scorecard=REF, contestants=(), checks=())
            self._move(model, Stage.CANARY)

        self._later(self._now + 2 * HOUR, done)

    def _move(self, model: Model, stage: Stage) -> None:
        self._generation += 1
        serves = stage is Stage.PRODUCTION
        event = self.say(
            "model.promoted", model_id=model.model_id, to_stage=stage, cause=f"cause-{self._generation}",
            from_stage=Stage.CANARY if serves else Stage.EVALUATED, reason="as judged",
            generation=self._generation, decided_by="rollout",
            replaces=self._champion.model_id if serves else None,
        )  # fmt: skip
        self._steps[model.model_id] = event
        if stage is Stage.CANARY:
            self._canary = model
        elif stage is Stage.PRODUCTION:
            self._canary, self._champion = None, model

    def _judged(self, event: Envelope[RolloutJudged]) -> None:
        model = self._models[event.data.model_id]
        if event.data.verdict == "passed":
            before = self._champion
            self._move(model, Stage.PRODUCTION)
            self._generation += 1
            self._steps[before.model_id] = self.tell(
                ModelPromoted(
                    project="desk",
                    model_id=before.model_id,
                    from_stage=Stage.PRODUCTION,
                    to_stage=Stage.RETIRED,
                    cause=event.id,
                    reason="replaced",
                    generation=self._generation,
                )
            )
        else:
            self._canary = None
            self._generation += 1
            self._steps[model.model_id] = self.tell(
                ModelRolledback(
                    project="desk",
                    model_id=model.model_id,
                    from_stage=Stage.CANARY,
                    restored=self._champion.model_id,
                    cause=event.id,
                    reason="; ".join(event.data.reasons),
                )
            )


def _next_working_morning(at: datetime) -> datetime:
    """Return nine o'clock of the next working day."""
    morning = (at + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)
    while morning.weekday() >= 5:
        morning += timedelta(days=1)
    return morning
