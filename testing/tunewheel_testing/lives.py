"""Ninety random days of one project: the registry, curate's decisions and the monitor's alarms and turns are
the real ones; the machines and the people around them fail, are late, or never come.

After each event, ``Life.complaints`` says which promise is broken:

- every open alarm has an answer, which names who or what ends its wait;
- people who are waited for were reminded at most a week ago;
- no wait for a service or the clock lasts for ever;
- neither drift nor records build what the spec leaves to people, and no alarm is tried more often than new
  labels, another training spec or failed machines explain;
- a process that starts anew, also after the log deleted ``drift.detected``, decides the same.

``Life.settle`` lets everybody do what they are asked for, and returns the alarms that nothing came of.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.production import DriftCluster, DriftDetected, DriftWindow
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_monitor.alarms import CALM_WINDOWS, weigh
from tunewheel_monitor.detectors import DETECTORS, Finding
from tunewheel_monitor.fold import Facts, tick
from tunewheel_monitor.knowledge import Production
from tunewheel_monitor.state import ProjectState
from tunewheel_monitor.state import Version as Watched
from tunewheel_monitor.turns.facts import TurnLog
from tunewheel_turns.deciding import PEOPLE, REMINDED, Step, decide, hold
from tunewheel_turns.dispatch import tell
from tunewheel_turns.facts import TurnFacts
from tunewheel_turns.readiness import RETRIES, follows, to_mend
from tunewheel_turns.state import State

from tunewheel_testing.random_logs import Version, World
from tunewheel_testing.specs import spec_of
from tunewheel_testing.story import PROJECT, START, model_of

DAYS = 90
LEGS = (timedelta(minutes=10), timedelta(hours=2), timedelta(days=1), timedelta(days=4), timedelta(days=12))
ACTIONS = {
    "clusters": "collect_labels",
    "format": "retrain",
    "latency": "investigate",
    "feedback": "collect_labels",
}
"""By detector that alarms in a life: the action that its alarms suggest."""
PLACES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
BY_NAME = {detector.name: detector for detector in DETECTORS}
EDITS: dict[str, tuple[Any, ...]] = {
    "approval": (False, False, True), "min_labels": (5, 20), "cooldown_seconds": (0, 3_600, 400_000),
    "alarm_seconds": (0, 90_000), "budget": ({}, {}, {"gpu_hours": 0.02}),
    "follow": ({}, {}, {"format": "nothing"}, {"latency": "retrain"}),
}  # fmt: skip
OFTEN = {
    "calm": 0.3,
    "order": 0.1,
    "records": 0.4,
    "edit": 0.2,
    "restart": 0.3,
    "command_model": 0.05,
    "wait": 0.7,
}
"""How often each act happens when it is its turn; others always."""


class Life(World):
    """One project from its first version in production on. ``act`` lets one thing happen."""

    ACTS = (
        "wait", "alarm", "calm", "label", "serve", "serve_much", "order", "records", "edit", "restart",
        "command_model",
    )  # fmt: skip

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.review_required = self.dice.random() < 0.3
        self.drift: dict[str, Any] = {"turns": {}}
        self.epochs = 1
        self.labels: Counter[str] = Counter()
        self.monitor = ProjectState()
        self.facts, self.turns, self._read = TurnFacts(), TurnLog(), 0
        self.decided: Envelope[TurnDecided] | None = None
        self.tries: Counter[tuple[str, ...]] = Counter()
        self.acts: list[str] = []
        self.decisions: list[Envelope[TurnDecided]] = []
        self._state: tuple[Any, State] | None = None
        self._looked_at = START
        self.spec = self._declare()
        self._serve_first()

    # what happens
    def act(self, name: str, seed: int) -> None:
        """Let one thing happen, and curate and the monitor look at it."""
        self.dice = random.Random(seed)
        if self.dice.random() < OFTEN.get(name, 1.0):
            self.acts.append(f"{name} {seed}")
            getattr(self, name)()
            self.look()

    def wait(self, leg: timedelta | None = None) -> None:
        """Let the clock move. Curate and the monitor look whenever the clock may change what they say."""
        end = self.story.now + (leg or self.dice.choice(LEGS))
        while self.story.now < end:
            clocks = [end, self.story.now + timedelta(days=1)]
            if self.decided is not None:
                clocks += [
                    at for at in (self.decided.data.until, self.decided.data.remind_at) if at is not None
                ]
            self.story.now = min(at for at in clocks if at > self.story.now)
            self.look()

    def alarm(self) -> None:
        """A detector finds drift in one window."""
        self._window(self.dice.choice([*ACTIONS]), drifted=True)

    def calm(self) -> None:
        name = self.dice.choice([*ACTIONS])
        for _ in range(CALM_WINDOWS):
            self._window(name, drifted=False)

    def label(self) -> None:
        for alarm in self.curated().alarms:
            if self.dice.random() < 0.7:
                self.labels[alarm.name] += self.dice.choice((1, 5, 30))

    def serve(self) -> None:
        """One service does one thing."""
        possible = [self.answer] * 3 if self._waiting() else []
        for version in self.versions.values():
            possible += self._training_of(version)
        possible += [self.decide] * 4 if self.inbox else []
        possible += self._of_models()
        if possible:
            self.dice.choice(possible)()

    def serve_much(self) -> None:
        for _ in range(8):
            self.serve()
            self.look()

    def order(self) -> None:
        """A person asks for a version."""
        alarms = tuple(alarm.name for alarm in to_mend(self.curated()))
        self._request(BuildReason.COMMAND, f"c-{len(self.story.events)}", alarms)

    def records(self) -> None:
        """Records arrive, and a version of them is due."""
        reason = self.dice.choice((BuildReason.COUNT, BuildReason.QUIET))
        if hold(self.curated(), reason, self.story.now) is None:
            self._request(reason, f"n-{len(self.story.events)}", ())

    def edit(self) -> None:
        """A person edits the spec."""
        if self.dice.random() < 0.2:
            self.epochs += 1
        elif self.dice.random() < 0.3:
            self.drift = self.drift | {"action": self.dice.choice(("build", "build", "suggest"))}
        else:
            name = self.dice.choice([*EDITS])
            self.drift = self.drift | {"turns": self.drift["turns"] | {name: self.dice.choice(EDITS[name])}}
        self.spec = self._declare()

    def command_model(self) -> None:
        if self.state.models:
            self.command(self.dice.choice([*self.state.models]))
            self.decide()

    def restart(self) -> None:
        """All processes start anew, perhaps of another release, which knows other fields of a checkpoint."""
        before = self._tell()
        told = self.monitor.as_json()
        if self.dice.random() < 0.5:
            told = {name: value for name, value in told.items() if name != "ended"} | {"later": 1}
            told["alarms"] = {name: one | {"later": 1} for name, one in told["alarms"].items()}
        self.monitor = ProjectState.from_json(told)
        kept = [one for one in self.story.events if not self._deleted(one)]
        self.facts, self.turns = TurnFacts(), TurnLog()
        for event in (kept, sorted(kept, key=lambda one: one.id))[self.dice.random() < 0.5]:
            self.facts.apply(event)
            self.turns.apply(event)
        self._read = len(self.story.events)
        assert self._tell() == before, "a process that starts anew decides otherwise"

    def _deleted(self, event: Envelope[Any]) -> bool:
        return isinstance(event.data, DriftDetected) and self.story.now - event.time > timedelta(days=30)

    def _of_models(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for version in self.versions.values():
            model = self.state.models.get(model_of(version.dataset_id))
            if version.trained == "completed" and (model is None or model.stage is Stage.REGISTERED):
                found.append(lambda version=version: self.judge(version))
            if model is not None and model.stage in (Stage.SHADOW, Stage.CANARY):
                found.append(lambda model=model: self.judge_rollout(model))
            if model is not None and model.stage is Stage.PRODUCTION and self.dice.random() < 0.05:
                found.append(lambda model=model: self.judge_rollout(model))
        return found

    # what the services say
    def look(self) -> None:
        """Curate and the monitor say what follows."""
        for said in tick(self.monitor, PROJECT, self._known(), self.story.now):
            self.story.add(said.data)
        self._publish()
        assert self.decided is not None
        if self.decided.data.step == Step.TURN:
            assert not self.left_to_people, "drift builds what the spec leaves to people"
            decision = decide(self.curated(), self.story.now)
            for name in decision.alarms:
                self.tries[self._chain(name)] += 1
            self._request(BuildReason.DRIFT, decision.request, decision.alarms)
            self._publish()

    def curated(self) -> State:
        """Return what curate decides from."""
        self._hear()
        known = (len(self.story.events), id(self.spec), self.labels.total(), id(self.facts))
        if self._state is None or self._state[0] != known:
            self._state = known, self.facts.state(self.spec, self.labels)
        return self._state[1]

    def complaints(self) -> Iterator[str]:
        """Yield the promises that are broken now."""
        state, now = self.curated(), self.story.now
        assert self.decided is not None
        told = self.decided.data
        answers = {one.alarm_id: one for one in told.alarms}
        if {alarm.alarm_id for alarm in self.monitor.alarms.values()} != set(answers):
            yield f"the monitor has {self.monitor.alarms}, curate answers {told.alarms}"
        for alarm in state.alarms:
            waits = answers[alarm.name].waits_for
            if (waits is None) is not (follows(state.drift.turns, alarm) == "nothing"):
                yield f"{alarm.name} waits for {waits}"
            if waits in PEOPLE and now - self.decided.time > REMINDED:
                yield f"nobody was reminded of {alarm.name} since {self.decided.time}"
            labels = sum(self.labels[one] for one in (alarm.name, *alarm.reopens)) // 5
            allowed = (1 + RETRIES) * (self.epochs + labels + len(alarm.reopens))
            if self.tries[self._chain(alarm.name)] > allowed:
                yield f"{alarm.name} was tried {self.tries[self._chain(alarm.name)]} times"
        people = any(one.waits_for in PEOPLE for one in told.alarms)
        if people is not (told.remind_at is not None) or (
            told.remind_at and not now < told.remind_at <= now + REMINDED
        ):
            yield f"the next reminder comes at {told.remind_at}, now is {now}"
        if told.until is not None and told.until <= self._looked_at:
            yield f"{told.step} ended at {told.until}, now is {now}"

    @property
    def left_to_people(self) -> bool:
        return self.spec.drift.turns.approval or self.spec.drift.action == "suggest"

    # what people and machines do if they do what they are asked for
    def settle(self) -> list[str]:
        """Let everybody do what they are asked for, and return the alarms that nothing came of."""
        waiting = {alarm.name: len(self.requests) for alarm in self.curated().alarms}
        for _ in range(60):
            self._do_what_is_asked()
            self.look()
            waiting = {name: at for name, at in waiting.items() if name in self._unanswered(at)}
            if not waiting:
                return []
            self.wait(timedelta(days=1))
        return [*waiting]

    def _unanswered(self, before: int) -> set[str]:
        """Return the open alarms that no request since names, and that the spec does not leave alone."""
        named = {name for one in self.requests[before:] for name in one.data.alarm_ids}
        state = self.curated()
        left = [alarm for alarm in state.alarms if follows(state.drift.turns, alarm) != "nothing"]
        return {alarm.name for alarm in left if alarm.name not in named}

    def _do_what_is_asked(self) -> None:
        assert self.decided is not None
        for one in self.decided.data.alarms:
            match one.waits_for:
                case "annotators":
                    self.labels[one.alarm_id] = max(self.labels[one.alarm_id], one.labels_needed or 0)
                case "operator" if one.follows == "investigate":
                    for _ in range(CALM_WINDOWS):
                        self._window(one.detector, drifted=False)
                case "operator":
                    self.order()
                case "curate":
                    if self._waiting():
                        self.answer()
                case None | "clock":
                    pass
                case _:
                    self._advance()

    def _advance(self) -> None:
        """Bring each version on by one step, well."""
        for version in self.versions.values():
            model = self.state.models.get(model_of(version.dataset_id))
            match version.trained:
                case "waiting":
                    self.start(version)
                case "started":
                    self.complete(version)
                case "completed" if model is None or model.stage in (Stage.REGISTERED, Stage.UNDECIDED):
                    self.give_verdict(version, "eval.passed")
                case "completed" if model is not None and model.stage in (Stage.SHADOW, Stage.CANARY):
                    self.give_judgement(model, model.stage.value, "passed", "bounds")
                case _:
                    pass
        while self.inbox:
            self.decide()

    # details
    def _declare(self) -> ProjectSpec:
        return spec_of(
            PROJECT,
            drift=self.drift,
            train={"epochs": self.epochs},
            rollout=self.rollout.model_dump(mode="json"),
        )

    def _serve_first(self) -> None:
        self._request(BuildReason.COUNT, "first", ())
        self.answers[self.requests[0].id] = "ds-1"
        self.versions["ds-1"] = Version("ds-1")
        self.story.version(self.requests[0], "ds-1")
        while self.state.champion is None:
            self._advance()
        self.look()

    def _request(self, reason: BuildReason, name: str, alarms: tuple[str, ...]) -> None:
        if reason in (BuildReason.COUNT, BuildReason.QUIET) and self.requests:
            assert self.spec.drift.action == "build", "records build what the spec leaves to people"
        made = self.story.request(name, reason=reason, alarm_ids=alarms)
        if made.id not in {one.id for one in self.requests}:  # the log has the first request of this name
            self.requests.append(made)
        self._apart()

    def start(self, version: Version) -> None:
        run = {"run_id": f"run-{version.dataset_id}", "dataset_id": version.dataset_id}
        self.story.say("train.planned", like="qlora-on-a-gpu", **run)
        super().start(version)

    def _window(self, name: str, *, drifted: bool) -> None:
        champion = self.state.champion
        if champion is None:
            return  # the base answers, and nobody watches it
        self.story.now += timedelta(minutes=5)
        action, now = ACTIONS[name], self.story.now
        place = self.dice.choice(PLACES)
        clustered = action == "collect_labels"
        cluster = DriftCluster(prompts=9, share=0.1, centroid=place, radius=0.1, completion_ids=("c-1",))
        found = Finding(
            detector=name, statistic_name="e", statistic=9.0, usual=None, items=100,
            p_value=0.0 if drifted else 1.0, threshold=0.1, effect=0.2, effect_unit="share", floor=0.1,
            reference="", action=action,  # type: ignore[arg-type]
            cluster=cluster if clustered else None, completion_ids=("c-1",),
        )  # fmt: skip
        span = DriftWindow(
            first_completion_id="c-1", last_completion_id=f"c-{len(self.story.events)}", completions=100,
            started_at=now, ended_at=now,
        )  # fmt: skip
        watched = Watched(champion.model_id, champion.model_id.removeprefix("model-"), self.state.generation)
        self.monitor.version = watched
        for said in weigh(
            self.monitor, watched, BY_NAME[name], found,
            project=PROJECT, window=span, drift=self.spec.drift, at=now,
        ):  # fmt: skip
            self.story.add(said.data)

    def _known(self) -> Facts:
        self._hear()
        champion = self.state.champion
        production = champion and Production(
            champion.model_id, champion.model_id.removeprefix("model-"), self.state.generation
        )
        return Facts(self.spec, production, turns=self.turns.open(PROJECT))

    def _hear(self) -> None:
        for event in self.story.events[self._read :]:
            self.facts.apply(event)
            self.turns.apply(event)
        self._read = len(self.story.events)

    def _tell(self) -> TurnDecided:
        state = self.curated()
        return tell(state, decide(state, self.story.now), PROJECT, self.story.now)

    def _publish(self) -> None:
        self._looked_at = self.story.now  # what is said takes a second, in which a wait may end
        told = self._tell()
        if self.decided is None or told != self.decided.data:
            self.decided = self.story.add(told)
            self.decisions.append(self.decided)
            self._hear()

    def _chain(self, name: str) -> tuple[str, ...]:
        """Return the first of the alarms that ``name`` reopens."""
        (alarm,) = (one for one in self.curated().alarms if one.name == name)
        return (alarm.reopens or (name,))[-1:]


def live(seed: int, *, seen: Callable[[Life], None] = lambda _: None) -> list[str]:
    """Let a random life go on for ``DAYS``, and return what is broken; ``seen`` gets the life before it
    settles."""
    dice = random.Random(seed)
    try:
        life = Life(seed)
        while life.story.now < START + timedelta(days=DAYS):
            life.act(dice.choice(Life.ACTS), dice.getrandbits(20))
            if broken := [*life.complaints()]:
                return broken
        seen(life)
        return [f"nothing came of {name}" for name in life.settle()]
    except AssertionError as error:
        return [str(error) or repr(error)]
