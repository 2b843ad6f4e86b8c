"""A project's log, event by event, under a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import turn_id_of
from tunewheel_testing.story import Story, adapter_of
from tunewheel_turns.deciding import Decision, decide
from tunewheel_turns.facts import TurnFacts
from tunewheel_turns.state import State

HOUR = timedelta(hours=1)


class Log(Story):
    """One project's events, and what curate decides once it has read all of them."""

    def __init__(self, spec: ProjectSpec) -> None:
        super().__init__(spec.project)
        self.spec = spec
        self.labelled: dict[str, int] = {}
        self.turn_ids: dict[str, str] = {}
        """By version."""
        self.tells = {"spec_sha256", "training_sha256"}
        """Hashes of the spec that curate's events bear."""

    def add(self, data: Any, by: Envelope[Any] | None = None, **more: Any) -> Envelope[Any]:
        """Add an event a minute after the one before."""
        self.pass_time()
        event = super().add(data, by, **more)
        self.now = event.time
        return event

    def alarm(self, name: str | None = "alarm-1", **told: Any) -> Envelope[Any]:
        window = {"first_completion_id": f"c-{len(self.events)}", "last_completion_id": "c", "completions": 9}
        times = dict.fromkeys(("started_at", "ended_at"), self.now)
        defaults = {"alarm_id": name, "signal": "novelty", "suggested_action": "retrain"} if name else {}
        return self.say("drift.detected", like="input", **defaults | {"window": window | times} | told)

    def resolved(self, name: str = "alarm-1") -> Envelope[Any]:
        times = dict.fromkeys(("raised_at", "resolved_at"), self.now)
        return self.say("drift.resolved", like="resolved", alarm_id=name, **times)

    def ask(self, reason: BuildReason = BuildReason.COUNT, name: str = "", **told: Any) -> Envelope[Any]:
        request = name or f"r-{len(self.events)}"
        return self.say("dataset.requested", like="named", reason=reason.value, request=request, **told)

    def begin(self) -> Envelope[Any]:
        """Ask for the turn that is due."""
        decision = self.decide()
        assert decision.request, decision
        return self.ask(BuildReason.DRIFT, decision.request, alarm_ids=decision.alarms)

    def reject(self, request: Envelope[Any]) -> Envelope[Any]:
        return self.say("dataset.rejected", request, like="too-few", **self._hashes())

    def version(self, request: Envelope[Any], name: str) -> str:
        self.turn_ids[name] = turn_id_of(request.id)
        self.say("dataset.versioned", request, like="first", dataset_id=name, **self._hashes())
        return name

    def _hashes(self) -> dict[str, str]:
        hashes = {"spec_sha256": self.spec.sha256, "training_sha256": self.spec.training_sha256}
        return {name: value for name, value in hashes.items() if name in self.tells}

    def train(self, name: str, *, plan: str = "qlora-on-a-gpu") -> str:
        """Begin the training of a version; returns the run."""
        run = {"run_id": f"run-{name}", "dataset_id": name}
        self.say("train.planned", like=plan, **run)
        self.say("train.started", like="resumed", **run)
        return run["run_id"]

    def trained(self, name: str, **told: Any) -> str:
        """Finish the training; returns the model."""
        self._of_model("train.completed", "planned", name, **told)
        return f"model-{name}"

    def judge(self, name: str, verdict: str) -> None:
        example = {"passed": "first", "failed": "missed", "undecided": "too-few"}[verdict]
        self._of_model(f"eval.{verdict}", example, name)

    def _of_model(self, topic: str, like: str, name: str, **told: Any) -> None:
        adapter = adapter_of(f"model-{name}")
        self.say(topic, like=like, run_id=f"run-{name}", dataset_id=name, adapter=adapter, **told)

    def move(self, name: str, stage: str, **told: Any) -> None:
        told |= {"model_id": f"model-{name}", "to_stage": stage, "cause": f"{self.now}"}
        self.say("model.promoted", like="to-production", **told)

    def roll_back(self, name: str) -> None:
        self.say("model.rolledback", like="to-champion", model_id=f"model-{name}")

    def complete(self, name: str, outcome: str, **told: Any) -> None:
        told |= {"turn_id": self.turn_ids[name], "dataset_id": name, "outcome": outcome}
        self.say("turn.completed", like="completed", **told)

    def serve(self, request: Envelope[Any], name: str) -> str:
        """Carry a turn to production."""
        self.version(request, name)
        self.train(name)
        self.trained(name)
        self.judge(name, "passed")
        self.move(name, "production")
        return name

    def facts(self) -> TurnFacts:
        facts = TurnFacts()
        for event in self.events:
            facts.apply(event)
        return facts

    def state(self) -> State:
        return self.facts().state(self.spec, self.labelled)

    def decide(self) -> Decision:
        return decide(self.state(), self.now)


@pytest.fixture
def log(spec: Callable[..., ProjectSpec]) -> Callable[..., Log]:
    """Makes the log of a project with these ``drift.turns``."""

    def make(drift: dict[str, Any] | None = None, **turns: Any) -> Log:
        told = spec().model_dump(mode="json") | {"drift": {"turns": turns} | (drift or {})}
        return Log(ProjectSpec.model_validate(told))

    return make
