"""What each fold of the log says about a random log, and where it contradicts the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tunewheel_console.state import ConsoleState, Project
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_monitor.turns.facts import TurnLog
from tunewheel_turns.facts import TurnFacts
from tunewheel_turns.state import outcome, over_at
from tunewheel_wheel.summary import place_in_words
from tunewheel_wheel.wheel import Wheel

from tunewheel_testing.random_logs import OUTCOMES, RandomLog, Truth
from tunewheel_testing.story import PROJECT

Events = list[Envelope[Any]]
SPEC = ProjectSpec.model_validate(
    {
        "project": PROJECT,
        "base_model": "org/tiny",
        "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
    }
)
CLI_STAGES = {
    "building a dataset": "building",
    "waiting for training": "waiting",
    "training": "training",
    "evaluating": "evaluating",
    "waiting for a review": "review",
    "undecided, waiting for a trial": "undecided",
    "passed, rolling out": "passed",
    "shadow": "shadow",
    "canary": "canary",
    "serving": "production",
}
"""By the place in ``status``: the stage of a turn. Other places say that no turn goes on."""
CURATE_OUTCOMES = {
    "unanswered": "was never answered",
    "no version": "was rejected",
    "untrained": "failed in training",
    "failed evaluation": "failed its evaluation",
    "undecided": "was undecided in its evaluation",
    "rejected": "was rejected",
    "rolled back": "was rolled back",
    "retired": "was retired before it served",
    "replaced": "was promoted",
}


def disagreements(log: RandomLog, fold: str) -> list[str]:
    """Return in what ``fold`` contradicts the truth about a log, read in some order of its topics."""
    return [*FOLDS[fold](log, log.in_some_order(len(log.events)))]


def wheel_turns(log: RandomLog, events: Events) -> Iterator[str]:
    """The stage and the end of each turn in the one fold, which ``status`` and the console print."""
    wheel = _wheel(events)
    for turn in wheel.turns:
        truth = log.turns[turn.turn_id]
        if (turn.stage.value, turn.end.value if turn.end else "") != (truth.stage, truth.end):
            yield f"{turn.turn_id} ({turn.dataset_id}) is {truth}, said {turn.stage}, {turn.end}"


def in_flight(log: RandomLog, events: Events) -> Iterator[str]:
    """The turns in flight of ``status`` and the console."""
    found = {turn.turn_id for turn in _wheel(events).in_flight(log.ends_at)}
    yield from _differing(log, lambda truth: not truth.over, {turn: turn in found for turn in log.turns})


def status_place(log: RandomLog, events: Events) -> Iterator[str]:
    """The place of a project in ``status``."""
    place = place_in_words(_wheel(sorted(events, key=lambda event: event.time)))
    yield from _place(log, CLI_STAGES.get(place, ""), place)


def console_models(log: RandomLog, events: Events) -> Iterator[str]:
    """The models' stages on the console."""
    stages = _console(events).stages
    for model, stage in log.stages.items():
        if stages.get(model, "registered") != stage:
            yield f"{model} is {stage}, said {stages.get(model)}"


def curate_turns(log: RandomLog, events: Events) -> Iterator[str]:
    """Whether curate may begin another turn, and how each ended. A superseded turn goes on with the newer
    version."""
    facts = TurnFacts()
    for event in events:
        facts.apply(event)
    turns = facts.state(SPEC).turns
    by_version = {
        log.versions[turn]: truth
        for turn, truth in log.turns.items()
        if turn in log.versions and truth.end != "unchanged"
    }

    def over(truth: Truth) -> bool:
        # an end that was told of another turn does not end the turn that goes its way
        if truth.end == "unchanged" and not truth.completed:
            (same,) = (log.versions[turn] for turn, one in log.turns.items() if one is truth)
            return over(replace(by_version[same], completed=False))
        if truth.newer and not truth.completed:
            return over(replace(by_version[truth.newer], completed=False))
        return truth.over or truth.stage == "production"

    said = {turn.turn_id: over_at(turn) is not None for turn in turns}
    yield from _differing(log, over, said)
    for turn in turns:
        truth = log.turns[turn.turn_id]
        if truth.end in CURATE_OUTCOMES and outcome(turn) != CURATE_OUTCOMES[truth.end]:
            yield f"{turn.turn_id} is {truth}, said {outcome(turn)!r}"


def monitor_turns(log: RandomLog, events: Events) -> Iterator[str]:
    """Which turns the monitor has not ended, and how the others ended."""
    turns = TurnLog()
    for event in events:
        turns.apply(event)
    open_ = {one.turn.turn_id: one for one in turns.open(PROJECT)}
    said = {name: name not in open_ or open_[name].turn.end is not None for name in log.turns}
    yield from _differing(log, lambda truth: truth.over, said)
    for name, one in open_.items():
        told = one.report.outcome if one.report.outcome != "promoted" else None
        if told != OUTCOMES.get(log.turns[name].end):
            yield f"{name} is {log.turns[name]}, said {told!r}"


FOLDS: dict[str, Callable[[RandomLog, Events], Iterator[str]]] = {
    one.__name__: one
    for one in (
        wheel_turns,
        in_flight,
        status_place,
        console_models,
        curate_turns,
        monitor_turns,
    )
}
_MODEL_TOPICS = ("model.registered", "model.promoted", "model.rolledback")


def _wheel(events: Events) -> Wheel:
    wheel = Wheel()
    for event in events:
        wheel.apply(event)
    return wheel


def _console(events: Events) -> Project:
    state = ConsoleState()
    for event in events:
        state.apply(event)
    return state.projects.get(PROJECT, Project(PROJECT))


def _differing(log: RandomLog, expected: Callable[[Truth], bool], said: dict[str, bool]) -> Iterator[str]:
    for turn, answer in said.items():
        truth = log.turns[turn]
        if answer is not expected(truth):
            yield f"{turn} ({log.versions.get(turn)}) is {truth}, said {answer}"


def _place(log: RandomLog, stage: str, place: str) -> Iterator[str]:
    """Compare the stage that a project's place stands for. With several turns any of theirs will do."""
    going_on = {truth.stage for truth in log.turns.values() if not truth.over and truth.stage != "production"}
    resting = {"", "production"} if "production" in log.stages.values() else {""}
    if stage not in (going_on or resting):
        yield f"{sorted(going_on or resting)}, said {place!r}"
