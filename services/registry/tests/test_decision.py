from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ModelRolledback, Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_registry.decision import decide
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import State


def play(
    desk: Any, *triggers: Envelope[Any], state: State | None = None, rollout: RolloutSpec | None = None
) -> State:
    state = state or State(desk.project)
    for trigger in triggers:
        for event in decide(state, trigger, rollout or desk.rollout):
            state = apply(state, event)
    return state


def stages(state: State, desk: Any) -> dict[int, str]:
    numbered = {desk.model_id(n): n for n in range(10)}
    return {numbered[m]: model.stage.value for m, model in state.models.items() if m in numbered}


def with_champion(desk: Any) -> State:
    return play(desk, desk.trained(1), desk.passed(1), rollout=RolloutSpec())


def test_a_run_registers_its_base_and_its_model(desk: Any):
    events = decide(State(desk.project), desk.trained(1), desk.rollout)
    assert [(type(e), e.kind) for e in events] == [(ModelRegistered, "base"), (ModelRegistered, "adapter")]
    assert events[0].model_id.startswith("base-")
    assert len(events[0].model_id) == len("base-") + 12


def test_a_whole_model_is_registered_as_full(desk: Any):
    events = decide(State(desk.project), desk.trained(1, method="full"), desk.rollout)
    assert events[1].kind == "full"


def test_without_a_champion_a_passed_model_goes_straight_to_production(make_desk: Any):
    desk = make_desk(shadow=False, canary=True)
    assert stages(play(desk, desk.passed(1)), desk) == {1: "production"}


def test_a_first_model_may_be_tried_beside_the_base(make_desk: Any):
    desk = make_desk(shadow=True, canary=True)
    state = play(desk, desk.passed(1))
    for stage in ("shadow", "canary"):
        assert stages(state, desk) == {1: stage}
        assert state.champion is None
        failed = play(desk, desk.judged(1, stage, "failed"), state=state)
        assert stages(failed, desk) == {1: "rolled_back"}
        state = play(desk, desk.judged(1, stage, "passed"), state=state)
    assert stages(state, desk) == {1: "production"}


def test_a_verdict_may_come_before_the_run_was_handled(desk: Any):
    early = play(desk, desk.passed(1), desk.trained(1))
    assert {m.stage for m in early.models.values()} == {Stage.REGISTERED, Stage.PRODUCTION}
    assert early.models == play(desk, desk.trained(1), desk.passed(1)).models


@pytest.mark.parametrize(
    ("policy", "verdicts", "expected"),
    [
        ({"shadow": False, "canary": False}, [], "production"),
        ({"shadow": False, "canary": True}, [], "canary"),
        ({"shadow": True, "canary": True}, [], "shadow"),
        ({"shadow": True, "canary": True}, [("shadow", "passed")], "canary"),
        ({"shadow": True, "canary": False}, [("shadow", "passed")], "production"),
        ({"shadow": True, "canary": True}, [("shadow", "failed")], "rolled_back"),
        ({"shadow": True, "canary": True}, [("shadow", "passed"), ("canary", "passed")], "production"),
        ({"shadow": True, "canary": True}, [("shadow", "passed"), ("canary", "failed")], "rolled_back"),
        ({"shadow": False, "canary": True}, [("canary", "passed")], "production"),
        ({"shadow": False, "canary": True}, [("canary", "failed")], "rolled_back"),
    ],
)
def test_the_rollout_policy_decides_the_way(
    make_desk: Any, policy: dict[str, bool], verdicts: list[tuple[str, str]], expected: str
):
    desk = make_desk(**policy)
    state = play(desk, desk.trained(2), desk.passed(2), state=with_champion(desk))
    for stage, verdict in verdicts:
        state = play(desk, desk.judged(2, stage, verdict), state=state)
    champion = 2 if expected == "production" else 1
    assert stages(state, desk)[2] == expected
    assert stages(state, desk)[1] == ("retired" if champion == 2 else "production")
    assert state.champion is not None
    assert state.champion.model_id == desk.model_id(champion)


def test_a_failed_rollout_names_the_champion_that_serves_instead(desk: Any):
    state = play(desk, desk.trained(2), desk.passed(2), state=with_champion(desk))
    (event,) = decide(state, desk.judged(2, "canary", "failed"), desk.rollout)
    assert isinstance(event, ModelRolledback)
    assert (event.restored, event.from_stage) == (desk.model_id(1), Stage.CANARY)
    assert "invalid outputs rose" in event.reason


def test_a_failed_evaluation_rejects_for_good(desk: Any):
    state = play(desk, desk.trained(1), desk.failed(1))
    assert stages(state, desk) == {1: "rejected"}
    with pytest.raises(InvalidEvent, match="final for a version"):
        decide(state, desk.passed(1), desk.rollout)


@pytest.mark.parametrize("against", [None, 1], ids=["the first evaluation", "another evaluation"])
@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_person_who_rejects_after_an_approval_takes_the_candidate_off_trial(
    make_desk: Any, stage: str, against: int | None
):
    desk = make_desk(shadow=stage == "shadow", canary=True)
    state = play(desk, desk.passed(2), state=with_champion(desk))
    assert stages(state, desk)[2] == stage
    reasons = ("rejected by ada: promises refunds",)
    rejection = desk.failed(2, field="review", reasons=reasons, against=against)
    (event,) = decide(state, rejection, desk.rollout)
    assert isinstance(event, ModelRolledback)
    assert (event.from_stage, event.restored) == (Stage(stage), desk.model_id(1))
    assert event.reason == "rejected by ada: promises refunds"
    after = play(desk, rejection, state=state)
    assert stages(after, desk) == {1: "production", 2: "rolled_back"}
    assert decide(after, rejection, desk.rollout) == []
    assert decide(after, desk.passed(2), desk.rollout) == []  # delivered again


def test_a_pass_that_people_gave_says_what_they_overrode(desk: Any):
    given = desk.passed(1, by="ada")
    missed = tuple(check.model_copy(update={"passed": False}) for check in given.data.checks)
    given = new_event(given.data.model_copy(update={"checks": missed}), source="/test")
    registered = play(desk, desk.trained(1))
    evaluated = decide(registered, given, desk.rollout)[0]
    assert isinstance(evaluated, ModelPromoted)
    assert evaluated.reason == "misses rouge_l; Ada overruled that"


def test_a_rejection_between_the_steps_of_an_approval_comes_first(desk: Any):
    state = play(desk, desk.trained(2), state=with_champion(desk))
    state = apply(state, decide(state, desk.passed(2), desk.rollout)[0])
    state = play(desk, desk.failed(2, field="review"), desk.passed(2), state=state)
    assert stages(state, desk) == {1: "production", 2: "rejected"}


def in_production(desk: Any, *numbers: int) -> State:
    """Return a state in which these versions reached production, one after the other."""
    state = State(desk.project)
    for n in numbers:
        state = play(desk, desk.trained(n), desk.passed(n), state=state)
    assert stages(state, desk) == dict.fromkeys(numbers[:-1], "retired") | {numbers[-1]: "production"}
    return state


@pytest.mark.parametrize("field", ["review", None])
def test_a_rejected_champion_is_replaced_by_its_predecessor(make_desk: Any, field: str | None):
    desk = make_desk(canary=False)
    state = in_production(desk, 1, 2)
    rejection = desk.failed(2, field=field, reasons=("rejected by ada: promises refunds",))
    out, back = decide(state, rejection, desk.rollout)
    assert isinstance(out, ModelRolledback)
    assert (out.from_stage, out.restored) == (Stage.PRODUCTION, desk.model_id(1))
    assert out.reason == "rejected by ada: promises refunds"
    assert isinstance(back, ModelPromoted)
    assert (back.model_id, back.from_stage, back.to_stage) == (
        desk.model_id(1), Stage.RETIRED, Stage.PRODUCTION,
    )  # fmt: skip
    assert desk.model_id(2) in back.reason
    after = play(desk, rejection, state=state)
    assert stages(after, desk) == {1: "production", 2: "rolled_back"}
    assert after.champion is not None
    assert after.champion.model_id == desk.model_id(1)
    for again in (rejection, desk.passed(1), desk.passed(2)):  # delivered again
        assert decide(after, again, desk.rollout) == []


def test_without_a_predecessor_the_base_answers_after_a_rejection(desk: Any):
    state = with_champion(desk)
    (event,) = decide(state, desk.failed(1, field="review"), desk.rollout)
    assert isinstance(event, ModelRolledback)
    assert event.restored is None
    after = apply(state, event)
    assert after.champion is None
    desired = desired_state(after, desk.spec())
    assert desired is not None
    (route,) = desired.desired.routes
    assert (route.role, route.percent, route.adapter) == ("production", 100, None)
    assert stages(play(desk, desk.passed(2), state=after), desk) == {1: "rolled_back", 2: "production"}


def test_predecessors_are_gone_back_through_but_not_to_one_that_was_rejected(make_desk: Any):
    desk = make_desk(canary=False)
    state = in_production(desk, 1, 2, 3)
    state = play(desk, desk.failed(2, field="review"), state=state)
    assert stages(state, desk) == {1: "retired", 2: "rejected", 3: "production"}
    state = play(desk, desk.failed(3, field="review"), state=state)
    assert stages(state, desk) == {1: "production", 2: "rejected", 3: "rolled_back"}
    state = play(desk, desk.trained(4), desk.passed(4, against=1), state=state)
    assert stages(state, desk) == {1: "retired", 2: "rejected", 3: "rolled_back", 4: "production"}
    state = play(desk, desk.failed(4, field="review"), state=state)
    assert stages(state, desk) == {1: "production", 2: "rejected", 3: "rolled_back", 4: "rolled_back"}


def test_a_restoration_that_a_crash_left_over_comes_before_anything_else(make_desk: Any):
    desk = make_desk(canary=True)
    state = play(desk, desk.passed(2), desk.judged(2, "canary", "passed"), state=with_champion(desk))
    out, back = decide(state, desk.failed(2, field="review"), desk.rollout)
    state = apply(state, out)
    assert back.event_id() in [e.event_id() for e in decide(state, desk.passed(3, against=1), desk.rollout)]
    state = play(desk, desk.passed(3, against=1), state=state)
    assert stages(state, desk) == {1: "production", 2: "rolled_back", 3: "canary"}


def test_a_person_who_rejects_a_superseded_candidate_leaves_an_event(desk: Any):
    state = play(desk, desk.trained(2), desk.passed(3, against=1), desk.passed(2), state=with_champion(desk))
    assert stages(state, desk) == {1: "production", 2: "retired", 3: "canary"}
    rejection = desk.failed(2, field="review", reasons=("rejected by ada: promises refunds",))
    (event,) = decide(state, rejection, desk.rollout)
    assert (event.model_id, event.to_stage) == (desk.model_id(2), Stage.REJECTED)
    after = play(desk, rejection, state=state)
    assert stages(after, desk) == {1: "production", 2: "rejected", 3: "canary"}
    assert decide(after, rejection, desk.rollout) == []
    assert decide(after, desk.passed(2), desk.rollout) == []  # delivered again: it was acted on before


@pytest.mark.parametrize("rollout", [{"canary": True}, {"shadow": True}, {"canary": False}])
def test_a_verdict_that_comes_late_puts_no_older_version_before_a_newer(
    make_desk: Any, rollout: dict[str, bool]
):
    """A person took longer over the second version than the third needed for all of its way."""
    desk = make_desk(**rollout)
    state = play(desk, desk.trained(2), desk.trained(3), desk.passed(3, against=1), state=with_champion(desk))
    newest = stages(state, desk)[3]
    state = play(desk, desk.passed(2), state=state)
    assert (stages(state, desk)[2], stages(state, desk)[3]) == ("retired", newest)
    assert desk.model_id(3) in state.models[desk.model_id(2)].history[-1].reason


def test_a_newer_version_that_is_out_of_traffic_again_is_in_nobodys_way(desk: Any):
    state = play(desk, desk.trained(2), desk.trained(3), desk.passed(3, against=1), state=with_champion(desk))
    state = play(desk, desk.judged(3, "canary", "failed"), desk.passed(2), state=state)
    assert stages(state, desk) == {1: "production", 2: "canary", 3: "rolled_back"}


def test_a_verdict_on_a_stage_that_is_over_is_out_of_date(desk: Any):
    state = play(desk, desk.passed(2), desk.judged(2, "canary", "passed"), state=with_champion(desk))
    assert decide(state, desk.judged(2, "canary", "failed", generation=99), desk.rollout) == []


@pytest.mark.parametrize("decided_by", ["deadline", "no gain"])
@pytest.mark.parametrize("stage", ["shadow", "canary"])
@pytest.mark.parametrize("champion", [True, False])
def test_a_candidate_that_is_not_shown_to_be_worse_retires(
    make_desk: Any, stage: str, champion: bool, decided_by: str
):
    desk = make_desk(shadow=stage == "shadow" or not champion, canary=True)
    state = play(desk, desk.passed(2), state=with_champion(desk) if champion else None)
    if stage == "canary" and not champion:
        state = play(desk, desk.judged(2, "shadow", "passed"), state=state)
    late = desk.judged(2, stage, "failed", decided_by=decided_by)
    (event,) = decide(state, late, desk.rollout)
    assert isinstance(event, ModelPromoted)
    assert (event.from_stage, event.to_stage, event.decided_by) == (Stage(stage), Stage.RETIRED, "rollout")
    after = play(desk, late, state=state)
    assert stages(after, desk) == ({1: "production"} if champion else {}) | {2: "retired"}
    assert after.predecessor is None  # it never served: production does not fall back to it
    assert decide(after, late, desk.rollout) == []


@pytest.mark.parametrize("first", ["deadline", "bounds"])
def test_of_a_deadline_and_a_verdict_at_once_the_first_counts(desk: Any, first: str):
    trial = play(desk, desk.passed(2), state=with_champion(desk))
    late = desk.judged(2, "canary", "failed", decided_by="deadline")
    passed = desk.judged(2, "canary", "passed", decided_by="bounds")
    assert late.id == passed.id
    order = (late, passed) if first == "deadline" else (passed, late)
    state = play(desk, *order, state=trial)
    assert stages(state, desk)[2] == ("retired" if first == "deadline" else "production")


def guarded(desk: Any) -> State:
    """Return a state in which the second version's canary brought it to production."""
    return play(desk, desk.passed(2), desk.judged(2, "canary", "passed"), state=with_champion(desk))


def test_a_champion_worse_than_its_predecessor_is_replaced_by_it(desk: Any):
    state = guarded(desk)
    assert stages(state, desk) == {1: "retired", 2: "production"}
    worse = desk.judged(2, "canary", "failed", generation=9, decided_by="guard")
    out, back = decide(state, worse, desk.rollout)
    assert isinstance(out, ModelRolledback)
    assert (out.from_stage, out.restored, out.decided_by) == (
        Stage.PRODUCTION, desk.model_id(1), "rollout",
    )  # fmt: skip
    assert (back.model_id, back.to_stage) == (desk.model_id(1), Stage.PRODUCTION)
    after = play(desk, worse, state=state)
    assert stages(after, desk) == {1: "production", 2: "rolled_back"}
    assert decide(after, worse, desk.rollout) == []


def test_a_guard_takes_back_only_what_the_trial_itself_put_into_production(desk: Any):
    worse = desk.judged(2, "canary", "failed", generation=9, decided_by="guard")
    pinned = play(desk, desk.commanded(2, "pin"), state=guarded(desk))
    by_command = play(desk, desk.passed(2), desk.commanded(2, "promote"), state=with_champion(desk))
    came_back = play(
        desk, desk.passed(3, against=2), desk.judged(3, "canary", "passed"),
        desk.commanded(3, "rollback"), state=guarded(desk),
    )  # fmt: skip
    on_trial = play(desk, desk.passed(2), state=with_champion(desk))
    for state in (pinned, by_command, came_back, on_trial):
        before = stages(state, desk)
        assert stages(play(desk, worse, state=state), desk) == before
    assert [stages(state, desk)[2] for state in (pinned, by_command, came_back, on_trial)] == [
        "production", "production", "production", "canary",
    ]  # fmt: skip
    kept = desk.judged(2, "canary", "passed", generation=9, decided_by="guard")
    assert decide(guarded(desk), kept, desk.rollout) == []


def test_a_verdict_on_a_stage_that_never_was_is_refused(desk: Any):
    with pytest.raises(InvalidEvent) as caught:
        decide(with_champion(desk), desk.judged(1, "canary", "passed"), desk.rollout)
    assert caught.value.field == "stage"


def test_a_verdict_on_an_unknown_model_is_refused(desk: Any):
    with pytest.raises(InvalidEvent, match="not registered"):
        decide(State(desk.project), desk.judged(1, "canary", "passed"), desk.rollout)


def test_another_adapter_under_a_registered_id_is_refused(desk: Any):
    with pytest.raises(InvalidEvent) as caught:
        decide(with_champion(desk), desk.passed(1, quantization="nf4"), desk.rollout)
    assert caught.value.field == "adapter"


def test_deciding_twice_gives_the_same_ids_and_after_that_nothing(desk: Any):
    state = play(desk, desk.trained(2), state=with_champion(desk))
    first = decide(state, desk.passed(2), desk.rollout)
    again = decide(state, desk.passed(2), desk.rollout)
    assert [e.event_id() for e in first] == [e.event_id() for e in again]
    assert decide(play(desk, desk.passed(2), state=state), desk.passed(2), desk.rollout) == []


class Walked(dict[str, Any]):
    """Counts how often all models are walked over."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


@pytest.mark.parametrize("verdict", ["undecided", "passed"])
def test_models_are_walked_over_as_often_however_many_wait(desk: Any, verdict: str):
    def walks(waiting: int) -> int:
        verdicts = (event for n in range(waiting) for event in (desk.trained(n), getattr(desk, verdict)(n)))
        state = play(desk, *verdicts)
        models = Walked(state.models)
        assert decide(replace(state, models=models), desk.trained(0), desk.rollout) == []
        return models.walks

    assert walks(40) == walks(10) > 0
