"""Random legal logs of one project, each with the truth about its turns.

Services that decide on the way are played by a random choice among the steps that are possible; the
registry is the real one: its ``decide`` answers each trigger, and its folded state is the oracle of every
model's stage.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from tunewheel_contracts import identity
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.training import TrainFailed
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_registry.decision import decide
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import State

from tunewheel_testing.desk import ANSWERS
from tunewheel_testing.story import Story, model_of

turn_id_of = cache(identity.turn_id_of)
STEPS = 45
MOST_TURNS = 3
SKEWS = (timedelta(0), timedelta(seconds=-6), timedelta(seconds=6))
"""How far the clocks of the three registries are ahead: the active one changes."""
COMMANDS = ("promote", "rollback", "retire", "reject", "stop", "pin", "unpin")
FAILURES = ("diverged", "no-base-model")
OUTCOMES = {
    "unanswered": "failed",
    "no version": "failed",
    "untrained": "failed",
    "unchanged": "unchanged",
    "superseded": "superseded",
    "failed evaluation": "rejected",
    "undecided": "undecided by evaluation",
    "rejected": "rejected",
    "rolled back": "rolled back",
    "retired": "retired",
}
"""By how a turn ended: the outcome that its ``turn.completed`` names. A turn that served has others."""
SERVED = ("", "replaced")
"""What ``turn.completed`` was told about where the turn's model served."""
TRIED = ("waiting", "training", "evaluating", "review", "undecided", "passed", "shadow", "canary")
"""The stages of a turn that has a version and does not serve yet."""


@dataclass(slots=True)
class Version:
    """What truly happened to one dataset version, in order."""

    dataset_id: str
    training: list[Envelope[Any]] = field(default_factory=list[Envelope[Any]])
    verdicts: list[Envelope[Any]] = field(default_factory=list[Envelope[Any]])

    @property
    def trained(self) -> str:
        """``waiting``, ``started``, ``failed`` or ``completed``."""
        return self.training[-1].data.type.removeprefix("train.") if self.training else "waiting"


@dataclass(frozen=True, slots=True)
class Truth:
    """The stage of one turn and, where the turn is over, the end."""

    stage: str
    end: str = ""
    newer: str = ""
    """For a superseded version: the newer version."""
    completed: bool = False
    """Whether ``turn.completed`` has told the end."""

    @property
    def over(self) -> bool:
        return bool(self.end)


@dataclass(slots=True)
class RandomLog:
    """A log in the order in which it came about, and the truth about it."""

    events: list[Envelope[Any]]
    turns: dict[str, Truth]
    """By turn, oldest first."""
    versions: dict[str, str]
    """By turn: its dataset version."""
    stages: dict[str, Stage]
    """By model that a run made: its stage by the registry's own lifecycle."""
    ends_at: datetime

    def in_some_order(self, seed: int) -> list[Envelope[Any]]:
        """Return the events as topics may be read: some twice, in order within a topic only."""
        dice = random.Random(seed)
        by_topic: dict[str, list[Envelope[Any]]] = {}
        for event in self.events:
            by_topic.setdefault(event.data.type, []).append(event)
        queues, read = [*by_topic.values()], list[Envelope[Any]]()
        while queues:
            queue = dice.choice(queues)
            for _ in range(dice.randint(1, len(queue))):
                read.append(queue.pop(0))
            queues = [one for one in queues if one]
        return read + dice.sample(self.events, len(self.events) // 3)


class World:
    """Plays the services. ``step`` lets one thing happen that may happen now."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.story = Story()
        self.story.pass_time = self._pass_time  # type: ignore[method-assign]
        self.state = State(self.story.project)
        self.rollout = RolloutSpec.model_validate(
            {name: {"enabled": self.dice.random() < 0.7} for name in ("shadow", "canary", "undecided")}
        )
        self.review_required = self.dice.random() < 0.2
        self.requests: list[Envelope[Any]] = []
        self.answers: dict[str, str] = {}
        """By request: its version; empty: it was rejected."""
        self.versions: dict[str, Version] = {}
        self.inbox: list[Envelope[Any]] = []
        """Triggers that the registry has not read yet."""
        self.told: dict[str, str] = {}
        """By turn: the end that its ``turn.completed`` told."""
        self.revisions: dict[str, int] = {}
        self.counts = self.dice.random() < 0.8
        """Whether train counts its attempts. Earlier releases did not, so their clocks must tell."""

    def _pass_time(self) -> None:
        self.story.now += timedelta(seconds=self.dice.choice((0, 0, 1, 5, 60)))

    def step(self) -> None:
        possible: list[Callable[[], None]] = []
        if len(self.requests) < MOST_TURNS:
            possible.append(self.ask)
        if self._waiting():
            possible += [self.answer] * 3
        for version in self.versions.values():
            possible += self._training_of(version)
        if self.inbox:
            possible += [self.decide] * 4
        possible += self._of_models()
        if tellable := self._tellable():
            possible.append(lambda: self.conclude(self.dice.choice(tellable)))
        if possible:
            self.dice.choice(possible)()

    # curate
    def ask(self) -> None:
        number = len(self.requests) + 1
        self.requests.append(self.story.request(f"r-{number}", reason=self.dice.choice(("count", "quiet"))))
        self._apart()

    def _waiting(self) -> list[Envelope[Any]]:
        answered = [at for at, one in enumerate(self.requests) if one.id in self.answers]
        return self.requests[max(answered, default=-1) + 1 :]

    def answer(self) -> None:
        waiting = self._waiting()
        request = waiting[-1] if self.dice.random() < 0.15 else waiting[0]
        if self.dice.random() < 0.12:
            self.story.say("dataset.rejected", request)
            self.answers[request.id] = ""
            return
        same = self.versions and self.dice.random() < 0.08
        name = next(iter(self.versions)) if same else f"ds-{self.requests.index(request) + 1}"
        self.versions.setdefault(name, Version(name))
        self.answers[request.id] = name
        self.story.version(request, name)
        self._apart()

    # train
    def _training_of(self, version: Version) -> list[Callable[[], None]]:
        match version.trained:
            case "waiting":
                return [lambda: self.start(version)] * 3 + [lambda: self.fail(version)]
            case "started":
                goes_on = [lambda: self.progress(version), lambda: self.complete(version)]
                return [*goes_on, lambda: self.complete(version), lambda: self.fail(version)]
            case "failed":
                return [lambda: self.start(version)]
            case _:
                return []

    def start(self, version: Version) -> None:
        """Start a run, or start it again after a failure: from its first step it has the first start's id."""
        again = self.dice.choice((0, 0, 20)) if version.training else 0
        self._train(version, "started", resumed_from_step=again)

    def _train(self, version: Version, what: str, **fields: Any) -> None:
        """Add a start or a failure. Where attempts are counted, workers' clocks differ."""
        failed = sum(event.data.type == "train.failed" for event in version.training)
        ahead = self.dice.choice(SKEWS) if self.counts else timedelta(0)
        self.story.now += ahead
        fields |= {"attempt": failed + 1} if self.counts else {}
        version.training.append(self.story.train(what, version.dataset_id, **fields))
        self.story.now -= ahead
        if not self.counts and what == "started":
            self._apart()

    def progress(self, version: Version) -> None:
        self.story.train("progressed", version.dataset_id, step=self.dice.randint(1, 60), total_steps=62)
        self._apart()

    def fail(self, version: Version) -> None:
        newer = [name for name in self.versions if name > version.dataset_id]
        kind = "superseded" if newer and not version.training else self.dice.choice(FAILURES)
        told = {"superseded_by": newer[-1]} if kind == "superseded" else {}
        self._train(version, "failed", like=kind, **told)

    def complete(self, version: Version) -> None:
        event = self.story.train("completed", version.dataset_id, like="planned")
        version.training.append(event)
        self.inbox.append(event)

    # eval, monitor and people
    def _of_models(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for version in self.versions.values():
            if version.trained != "completed":
                continue
            model = self.state.models.get(model_of(version.dataset_id))
            found += [lambda version=version: self.judge(version)] * (1 if version.verdicts else 4)
            if model is not None and model.stage in (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
                found += [lambda model=model: self.judge_rollout(model)] * 3
            if model is not None:
                found.append(lambda model=model: self.command(model.model_id))
        return found

    def judge(self, version: Version) -> None:
        topics = ("eval.passed", "eval.passed", "eval.passed", "eval.failed", *["eval.undecided"] * 2)
        self.give_verdict(version, self.dice.choice((*topics, "review.requested")))

    def give_verdict(self, version: Version, topic: str) -> None:
        more = self._undecided() if topic == "eval.undecided" else {}
        event = self.story.judge(
            topic, version.dataset_id, evaluation_id=f"e-{len(self.story.events)}",
            contestants=self._contestants(version.dataset_id), **more,
        )  # fmt: skip
        version.verdicts.append(event)
        if topic != "review.requested":
            self.inbox.append(event)
        self._apart()

    def _undecided(self) -> dict[str, Any]:
        """Return what is special about a verdict that cannot tell, of this or an earlier release."""
        figure = self.dice.choice((0.7, 0.7, None))
        check = {"criterion": {"metric": "label_accuracy", "over_champion": -0.1}, "passed": False,
                 "reason": "few rows", "outcome": "undecided", "observed": figure}  # fmt: skip
        return {"checks": [check], "moves_model": self.dice.random() < 0.7}

    def _contestants(self, dataset_id: str) -> list[dict[str, Any]]:
        champion = self.state.champion
        roles = {"candidate": model_of(dataset_id), "base": "base"}
        if champion is not None and champion.model_id not in roles.values():
            roles["champion"] = champion.model_id
        return [{"role": role, "model_id": name, "metrics": {}} for role, name in roles.items()]

    def judge_rollout(self, model: Any) -> None:
        guards = model.stage is Stage.PRODUCTION
        stage = "canary" if guards else model.stage.value
        by = "guard" if guards else self.dice.choice(("bounds", "bounds", "deadline"))
        if model.is_doubted and self.dice.random() < 0.4:
            by = "deadline"
        ends = guards or by == "deadline"
        self.give_judgement(
            model, stage, "failed" if ends else self.dice.choice(("passed", "passed", "failed")), by
        )

    def give_judgement(self, model: Any, stage: str, verdict: str, by: str) -> None:
        self.inbox.append(
            self.story.say(
                "rollout.judged",
                model_id=model.model_id,
                stage=stage,
                verdict=verdict,
                decided_by=by,
                bounds=[ANSWERS] if self.dice.random() < 0.8 else [],
                generation=self.state.generation,
            )
        )

    def command(self, model_id: str) -> None:
        self.inbox.append(
            self.story.say(
                "model.commanded",
                model_id=model_id,
                action=self.dice.choice(COMMANDS),
                generation=None,
                request=f"c-{len(self.story.events)}",
                force=self.dice.random() < 0.5,
            )
        )

    # the registry
    def decide(self) -> None:
        """Let the registry answer its oldest trigger, under the clock of the registry that is active."""
        trigger = self.inbox.pop(0)
        try:
            decided = decide(self.state, trigger, self.rollout, review_required=self.review_required)
        except InvalidEvent:
            return  # a dead letter
        ahead = self.dice.choice(SKEWS)
        for event in decided:
            said = self.story.add(event, trigger, ahead=ahead)
            self.state = apply(self.state, event, cause=trigger.id, at=said.time)

    # the truth
    def _turns(self) -> dict[str, Truth]:
        return {turn_id_of(one.id): self._truth(one) for one in self.requests}

    def _truth(self, request: Envelope[Any]) -> Truth:
        """Return the truth about a turn. An end that was told before the turn served is void once the turn
        goes on; an end that was told of a turn that served is void once the turn is rolled back."""
        course, told = self._course(request), self.told.get(turn_id_of(request.id))
        if told is None:
            return course
        if course.end:
            return replace(course, completed=not (told in SERVED and course.end == "rolled back"))
        return Truth(course.stage, "completed", completed=True) if told in SERVED else course

    def _course(self, request: Envelope[Any]) -> Truth:
        name = self.answers.get(request.id)
        if name is None:
            later = self.requests[self.requests.index(request) + 1 :]
            unanswered = any(one.id in self.answers for one in later)
            return Truth("building", "unanswered" if unanswered else "")
        if not name:
            return Truth("building", "no version")
        if next(one for one in self._answered_in_order() if self.answers[one] == name) != request.id:
            return Truth("waiting", "unchanged")
        version = self.versions[name]
        if version.trained == "waiting":
            return Truth("waiting")
        if version.trained == "failed":
            last: TrainFailed = version.training[-1].data
            newer = last.superseded_by or ""
            stage = "training" if any(e.data.type == "train.started" for e in version.training) else "waiting"
            return Truth(stage, "superseded" if newer else "untrained", newer)
        if version.trained == "started":
            return Truth("training")
        return self._by_model(version)

    def _answered_in_order(self) -> list[str]:
        return [*self.answers]

    def _by_model(self, version: Version) -> Truth:
        model = self.state.models.get(model_of(version.dataset_id))
        if model is None or model.stage is Stage.REGISTERED:
            match version.verdicts[-1].data.type if version.verdicts else "":
                case "eval.passed":
                    return Truth("passed")
                case "eval.failed":
                    return Truth("evaluating", "failed evaluation")
                case "eval.undecided":
                    moves = version.verdicts[-1].data.moves_model
                    return Truth("undecided") if moves else Truth("evaluating", "undecided")
                case "review.requested":
                    return Truth("review")
                case _:
                    return Truth("evaluating")
        served = model.has_been(Stage.PRODUCTION)
        names = {
            Stage.UNDECIDED: "undecided", Stage.EVALUATED: "passed", Stage.SHADOW: "shadow",
            Stage.CANARY: "canary",
        }  # fmt: skip
        before = [names[step.stage] for step in model.history if step.stage in names]
        last = "production" if served else before[-1] if before else "evaluating"
        match model.stage:
            case Stage.UNDECIDED:
                return Truth("undecided", "undecided" if model.to_show is None else "")
            case Stage.EVALUATED:
                return Truth("passed")
            case Stage.SHADOW | Stage.CANARY | Stage.PRODUCTION:
                return Truth(model.stage.value)
            case Stage.ROLLED_BACK:
                return Truth(last, "rolled back")
            case Stage.REJECTED:
                by_metrics = model.decided_by == "criteria"
                return Truth(last, "failed evaluation" if by_metrics else "rejected")
            case Stage.RETIRED:
                doubted = model.to_show is not None and model.history[-2].stage is Stage.SHADOW
                undecided = model.decided_by == "criteria" or (model.decided_by == "rollout" and doubted)
                return Truth(last, "replaced" if served else "undecided" if undecided else "retired")
            case _:
                raise AssertionError(model.stage)

    # the monitor
    def _tellable(self) -> list[str]:
        """Return the turns that are over, or serve, and whose end was not told."""
        return [
            turn
            for turn, truth in self._turns().items()
            if (
                turn not in self.told
                or (truth.stage == "production" and truth.end == "")
                or (self.told[turn] in SERVED and truth.end == "rolled back")
            )
            and (truth.end in OUTCOMES or truth.end == "replaced" or truth.stage == "production")
        ]

    def conclude(self, turn: str) -> None:
        request = next(one for one in self.requests if turn_id_of(one.id) == turn)
        truth = self._truth(request)
        outcome = OUTCOMES.get(truth.end) or self.dice.choice(("helped", "promoted", "undecided"))
        self._apart()
        self.revisions[turn] = self.revisions.get(turn, -1) + 1
        self.told[turn] = truth.end
        topic = ("turn.completed", "turn.completed.v2")[self.revisions[turn] % 2]  # of two releases
        self.story.say(
            topic, request, turn_id=turn, dataset_id=self.answers.get(request.id) or None,
            alarm_ids=(), revision=self.revisions[turn], outcome=outcome, began_at=request.time,
            ended_at=max(self.story.now, request.time),
        )  # fmt: skip

    def _apart(self) -> None:
        """Let the clock move on after an event that the next of the same service must not be level with."""
        self.story.now += timedelta(seconds=1)


def random_log(seed: int) -> RandomLog:
    """Return the log of ``seed``."""
    world = World(seed)
    for _ in range(world.dice.randint(4, STEPS)):
        world.step()
    versions = {turn_id_of(one): name for one, name in world.answers.items() if name}
    made = [model_of(name) for name in world.versions]
    return RandomLog(
        events=world.story.events,
        turns=world._turns(),
        versions=versions,
        stages={name: world.state.models[name].stage for name in made if name in world.state.models},
        ends_at=world.story.now + timedelta(minutes=1),
    )
