"""What people command of models: carried out once, or refused once with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelPinned
from tunewheel_registry.decision import decide
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import base_model_id

from .conftest import Log as Played


class Log(Played):
    def refusal(self, command: Envelope[Any]) -> tuple[str, str]:
        (event,) = self.play(command)
        assert isinstance(event, CommandRefused)
        assert event.command_id == command.id
        return event.field, event.reason

    def answering(self) -> str:
        desired = desired_state(self.state, self.desk.spec())
        assert desired is not None
        return desired.desired.routes[0].model_id


@pytest.fixture(name="log")
def make_log(desk: Any) -> Log:
    """The first version was replaced by the second; the third is in canary."""
    log = Log(desk, desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"), desk.passed(3))
    assert log.stages() == {1: "retired", 2: "production", 3: "canary"}
    return log


def test_a_candidate_is_promoted_from_its_trial_without_a_judgement(desk: Any, log: Log):
    log.play(desk.commanded(3, "promote"))
    assert log.stages() == {1: "retired", 2: "retired", 3: "production"}


def test_a_champion_of_before_is_promoted_again_and_again(desk: Any, log: Log):
    for request in ("one", "two"):
        log.play(desk.commanded(1, "promote", request=request))
        assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
        log.play(desk.commanded(2, "promote", request=request))
        assert log.stages() == {1: "retired", 2: "production", 3: "canary"}


def test_an_older_candidate_on_trial_gives_way_to_a_newer_one_that_a_person_promotes(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.trained(3))
    log.play(desk.commanded(3, "promote", force=True))
    assert log.stages() == {1: "retired", 2: "retired", 3: "production"}


@pytest.mark.parametrize("verdict", ["none", "failed"])
def test_a_model_that_did_not_pass_is_promoted_only_by_force(desk: Any, log: Log, verdict: str):
    log.play(desk.trained(4), *([desk.failed(4)] if verdict == "failed" else []))
    field, reason = log.refusal(desk.commanded(4, "promote"))
    assert (field, "force" in reason) == ("model_id", True)
    log.play(desk.commanded(4, "promote", force=True))
    assert log.stages() == {1: "retired", 2: "retired", 3: "retired", 4: "production"}
    late = desk.failed(4, against=2)
    assert log.play(late) == []  # metrics do not take back what a person decided
    log.play(desk.failed(4, field="review", against=1))
    assert log.stages()[4] == "rolled_back"


@pytest.mark.parametrize("way", ["verdict", "canary", "command", "rolled back first"])
def test_a_model_that_a_person_rejected_never_comes_back(desk: Any, log: Log, way: str):
    if way == "verdict":
        log.play(desk.trained(4), desk.failed(4, field="review"))
    elif way == "canary":
        log.play(desk.passed(4, against=2), desk.failed(4, field="review"))
    elif way == "command":
        log.play(desk.passed(4, against=2), desk.commanded(4, "reject"))
        assert log.stages()[4] == "rejected"
    else:
        log.play(desk.passed(4, against=2), desk.commanded(4, "rollback"), desk.failed(4, field="review"))
        assert log.stages()[4] == "rejected"
    assert "final" in log.refusal(desk.commanded(4, "promote", force=True))[1]
    assert log.stages()[2] == "production"


def test_a_person_may_promote_a_model_that_metrics_took_out_of_canary(desk: Any, log: Log):
    log.play(desk.judged(3, "canary", "failed"))
    log.refusal(desk.commanded(3, "promote"))
    log.play(desk.commanded(3, "promote", force=True))
    assert log.stages()[3] == "production"


def test_a_rejection_of_a_log_that_does_not_say_who_rejected_counts_as_a_persons(desk: Any, log: Log):
    (event,) = decide(log.state, desk.failed(3), desk.rollout)
    log.state = apply(log.state, event.model_copy(update={"decided_by": None}))
    assert "final" in log.refusal(desk.commanded(3, "promote", force=True))[1]


def test_rollback_brings_the_predecessors_back_and_the_base_at_last(desk: Any, log: Log):
    log.play(desk.commanded(3, "retire"), desk.commanded(2, "rollback"))
    assert log.stages() == {1: "production", 2: "rolled_back", 3: "retired"}
    assert log.answering() == desk.model_id(1)
    log.play(desk.commanded(1, "rollback"))
    assert log.stages() == {1: "rolled_back", 2: "rolled_back", 3: "retired"}
    assert log.answering() == base_model_id(desk.adapter(1).base)
    log.play(desk.commanded(2, "promote"))  # a person's rollback is undone by a person, without force
    assert log.answering() == desk.model_id(2)


def test_the_same_model_is_rolled_back_twice(desk: Any, log: Log):
    for request in ("one", "two"):
        log.play(desk.commanded(2, "rollback", request=request))
        assert log.stages()[1] == "production"
        log.play(desk.commanded(2, "promote", request=request))
        assert log.stages()[1] == "retired"


def test_a_champion_that_was_retired_is_no_predecessor_any_more(desk: Any, log: Log):
    log.play(desk.commanded(2, "retire"))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
    log.play(desk.commanded(1, "rollback"))
    assert log.stages() == {1: "rolled_back", 2: "retired", 3: "canary"}
    assert log.state.predecessor is None


def test_a_rejected_champion_gives_way_to_its_predecessor(desk: Any, log: Log):
    log.play(desk.commanded(2, "reject"))
    assert log.stages() == {1: "production", 2: "rejected", 3: "canary"}


def test_while_production_is_pinned_nobody_goes_up_and_the_newest_goes_on_afterwards(desk: Any, log: Log):
    (pinned,) = log.play(desk.commanded(2, "pin"))
    assert isinstance(pinned, ModelPinned)
    log.play(desk.judged(3, "canary", "passed"), desk.passed(4, against=2), desk.passed(5, against=2))
    assert log.stages() == {1: "retired", 2: "production", 3: "canary", 4: "evaluated", 5: "evaluated"}
    for n in (3, 4):
        assert "is pinned" in log.state.models[desk.model_id(n)].history[-1].reason
    assert "unpin" in log.refusal(desk.commanded(4, "promote"))[1]
    log.play(desk.commanded(2, "unpin"))
    assert log.stages() == {1: "retired", 2: "production", 3: "retired", 4: "retired", 5: "canary"}


def test_a_model_that_waited_for_a_pin_is_judged_again_if_it_did_not_beat_the_champion(desk: Any, log: Log):
    log.play(desk.commanded(3, "retire"), desk.commanded(2, "pin"), desk.passed(4, against=1))
    _, asked = log.play(desk.commanded(2, "unpin"))
    assert isinstance(asked, EvalRequested)
    assert (asked.run_id, asked.against) == ("run-4", desk.model_id(2))


@pytest.mark.parametrize("action", ["rollback", "reject", "retire"])
def test_a_pin_ends_when_its_model_leaves_production(desk: Any, log: Log, action: str):
    log.play(desk.commanded(2, "pin"), desk.commanded(2, action))
    assert log.state.pinned is None
    assert log.stages()[1] == "production"
    if action != "reject":
        log.play(desk.commanded(2, "promote"))
        assert log.state.pinned is None


def test_of_two_commands_at_once_one_wins_and_the_other_is_told_why(desk: Any, log: Log):
    seen = log.state.generation
    first = desk.commanded(1, "promote", generation=seen)
    second = desk.commanded(3, "promote", generation=seen)
    log.play(first)
    field, reason = log.refusal(second)
    assert (field, str(seen) in reason) == ("generation", True)
    assert log.play(first) == log.play(second) == []


def test_a_command_cut_short_is_finished_though_others_came_in_between(desk: Any, log: Log):
    seen = log.state.generation
    command = desk.commanded(2, "reject", generation=seen)
    begun, *rest = decide(log.state, command, desk.rollout)
    log.state = apply(log.state, begun)
    again = decide(log.state, command, desk.rollout)
    assert [event.event_id() for event in again] == [event.event_id() for event in rest]
    log.play(command)
    assert log.stages()[2] == "rejected"


@pytest.mark.parametrize(
    ("action", "n", "changes", "field"),
    [
        ("promote", 9, {}, "model_id"),
        ("promote", 2, {}, "model_id"),
        ("promote", 2, {"model_id": "base-bcdf13b76a68"}, "model_id"),
        ("promote", 2, {"model_id": "champion"}, "model_id"),
        ("rollback", 1, {}, "model_id"),
        ("retire", 1, {}, "model_id"),
        ("pin", 3, {}, "model_id"),
        ("unpin", 2, {}, "model_id"),
        ("explode", 2, {}, "action"),
        ("rollback", 2, {"generation": 3}, "generation"),
    ],
)
def test_a_command_that_fits_nothing_is_refused(
    desk: Any, log: Log, action: str, n: int, changes: dict[str, Any], field: str
):
    changes = {"model_id": base_model_id(desk.adapter(1).base)} if "base-" in str(changes) else changes
    before = log.stages()
    command = desk.commanded(n, action, **changes)
    assert log.refusal(command)[0] == field
    assert log.play(command) == []  # once
    assert log.stages() == before


def test_a_refused_command_stays_refused_when_it_would_fit_later(desk: Any, log: Log):
    command = desk.commanded(1, "rollback")
    log.refusal(command)
    log.play(desk.commanded(1, "promote"))
    assert log.play(command) == []
    assert log.stages()[1] == "production"


def test_a_verdict_on_a_rejected_version_is_refused_still(desk: Any, log: Log):
    log.play(desk.trained(4), desk.commanded(4, "reject"))
    with pytest.raises(InvalidEvent, match="final"):
        decide(log.state, desk.passed(4), desk.rollout)


def shares(log: Log) -> list[tuple[str, int]]:
    desired = desired_state(log.state, log.desk.spec())
    assert desired is not None
    return [(route.model_id, route.percent) for route in desired.desired.routes]


def test_a_stop_leaves_the_champion_alone_until_it_is_unpinned(desk: Any, log: Log):
    champion, candidate = desk.model_id(2), desk.model_id(3)
    (pin,) = log.play(desk.commanded(2, "stop", model_id="champion", generation=None))
    assert (pin.model_id, pin.alone) == (champion, True)
    assert shares(log) == [(champion, 100)]
    assert log.stages()[3] == "canary", "it keeps its stage"
    assert log.play(desk.commanded(2, "stop", model_id="champion")) == [], "redelivered"
    assert "alone already" in log.refusal(desk.commanded(2, "stop", model_id="champion", request="two"))[1]
    log.play(desk.passed(4, against=2))
    assert shares(log) == [(champion, 100)]
    log.play(desk.commanded(2, "unpin"))
    assert [model for model, _ in shares(log)] == [champion, candidate], "its trial goes on"
    log.play(desk.judged(3, "canary", "failed"))
    assert [model for model, _ in shares(log)] == [champion, desk.model_id(4)]


def test_a_stop_to_the_base_leaves_nobody_else_and_the_champion_comes_back(desk: Any, log: Log):
    base = base_model_id(desk.adapter(1).base)
    log.play(desk.commanded(0, "stop", model_id="base"))
    assert shares(log) == [(base, 100)]
    desired = desired_state(log.state, desk.spec())
    assert desired is not None
    assert desired.stand_ins == ()
    assert "pinned" in log.refusal(desk.commanded(3, "promote"))[1]
    log.play(desk.commanded(2, "rollback"))
    assert shares(log) == [(base, 100)], "whoever becomes champion meanwhile"
    log.play(desk.commanded(0, "stop", model_id="champion", request="two"))
    assert shares(log) == [(desk.model_id(1), 100)]
    log.play(desk.commanded(0, "stop", model_id="base", request="three"))
    log.play(desk.commanded(0, "unpin", model_id=base))
    assert shares(log)[0][0] == desk.model_id(1)


@pytest.mark.parametrize("action", ["rollback", "reject", "retire"])
def test_a_stop_goes_on_when_its_model_leaves_production(desk: Any, log: Log, action: str):
    """With whoever takes over, at last the base; and nobody who waits is promoted in the same decision."""
    log.play(desk.commanded(2, "stop", model_id="champion"), desk.judged(3, "canary", "passed"))
    log.play(desk.commanded(2, action))
    assert shares(log) == [(desk.model_id(1), 100)]
    log.play(desk.commanded(1, action))
    assert shares(log) == [(base_model_id(desk.adapter(1).base), 100)]
    assert log.stages()[3] == "canary"
    log.play(desk.commanded(0, "unpin", model_id=base_model_id(desk.adapter(1).base)))
    assert shares(log) == [(desk.model_id(3), 100)], "it held up, and there is no champion"


@pytest.mark.parametrize("done", [1, 2])
def test_a_stop_that_goes_on_is_finished_after_a_crash(desk: Any, log: Log, done: int):
    log.play(desk.commanded(2, "stop", model_id="champion"))
    command = desk.commanded(2, "rollback")
    whole = decide(log.state, command, desk.rollout)
    assert [event.type for event in whole] == ["model.rolledback", "model.promoted", "model.pinned"]
    for event in whole[:done]:
        log.state = apply(log.state, event)
    assert [event.event_id() for event in log.play(command)] == [e.event_id() for e in whole[done:]]
    assert shares(log) == [(desk.model_id(1), 100)]


@pytest.mark.parametrize("to", ["base", "champion"])
def test_a_pin_ends_no_stop(desk: Any, log: Log, to: str):
    """It may have been sent before the stop, and be read after it."""
    log.play(desk.commanded(0, "stop", model_id=to))
    alone = shares(log)
    assert "unpin it first" in log.refusal(desk.commanded(2, "pin"))[1]
    assert shares(log) == alone
    assert len(alone) == 1


def test_only_the_champion_or_the_base_can_be_left_alone(desk: Any, log: Log):
    assert "stop can only leave the champion" in log.refusal(desk.commanded(3, "stop"))[1]
    empty = Log(desk)
    for name in ("champion", "base"):
        assert f"there is no {name}" in empty.refusal(desk.commanded(0, "stop", model_id=name))[1]
