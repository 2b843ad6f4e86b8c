from __future__ import annotations

from typing import Any

from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_registry.decision import decide
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import State, base_model_id


def play(desk: Any, *triggers: Any) -> State:
    state = State(desk.project)
    for trigger in triggers:
        for event in decide(state, trigger, desk.rollout):
            state = apply(state, event)
    return state


def shares(desk: Any, *triggers: Any) -> dict[str, tuple[str, int]]:
    desired = desired_state(play(desk, *triggers), desk.spec())
    assert desired is not None
    return {route.role.value: (route.model_id, route.percent) for route in desired.desired.routes}


def test_nothing_is_desired_of_a_project_without_models(desk: Any):
    assert desired_state(State("desk"), desk.spec()) is None


def test_the_bare_base_answers_until_there_is_a_champion(desk: Any):
    base = base_model_id(desk.adapter(1).base)
    assert shares(desk, desk.trained(1)) == {"production": (base, 100)}
    desired = desired_state(play(desk, desk.trained(1)), desk.spec())
    assert desired is not None
    assert desired.desired.routes[0].adapter is None


def test_another_system_prompt_is_another_event(desk: Any):
    """Whoever knows events by their ids must not take the new state for the old one."""
    state, spec = play(desk, desk.passed(1)), desk.spec()
    spoken = spec.model_copy(update={"task": spec.task.model_copy(update={"system_prompt": "Be brief."})})
    before, after = desired_state(state, spec), desired_state(state, spoken)
    assert before is not None
    assert after is not None
    assert before.event_id() == before.model_copy().event_id() != after.event_id()


def test_the_champion_answers(desk: Any):
    assert shares(desk, desk.passed(1)) == {"production": (desk.model_id(1), 100)}


def test_a_canary_takes_its_share(make_desk: Any):
    desk = make_desk(percent=30)
    assert shares(desk, desk.passed(1), desk.passed(2)) == {
        "production": (desk.model_id(1), 70),
        "canary": (desk.model_id(2), 30),
    }


def test_a_shadow_sees_copies_and_answers_nothing(make_desk: Any):
    desk = make_desk(shadow=True, shadow_percent=40)
    base = base_model_id(desk.adapter(1).base)
    assert shares(desk, desk.passed(1)) == {"production": (base, 100), "shadow": (desk.model_id(1), 40)}


def test_the_generation_counts_lifecycle_events_and_the_prompt_comes_from_the_spec(desk: Any):
    state = play(desk, desk.trained(1), desk.passed(1))
    desired = desired_state(state, desk.spec())
    assert desired is not None
    assert desired.generation == 4  # base, model, evaluated, production
    assert desired.system_prompt == "Answer as JSON."
    production = desired.desired.routes[0]
    assert production.role is RouteRole.PRODUCTION
    assert production.adapter == desk.adapter(1)
    assert production.dataset_id == "ds-1"


def stand_ins(desk: Any, *triggers: Any) -> list[str]:
    desired = desired_state(play(desk, *triggers), desk.spec())
    assert desired is not None
    assert all(route.role is RouteRole.PRODUCTION and route.percent == 100 for route in desired.stand_ins)
    return [route.model_id for route in desired.stand_ins]


def test_champions_of_before_may_stand_in_and_the_bare_base_before_the_first(make_desk: Any):
    desk = make_desk(canary=False)
    verdicts = [desk.passed(n) for n in range(1, 10)]
    assert stand_ins(desk, desk.trained(1)) == []  # the base itself answers
    assert stand_ins(desk, verdicts[0]) == [base_model_id(desk.adapter(1).base)]
    assert stand_ins(desk, *verdicts[:3]) == [desk.model_id(2), desk.model_id(1)]
    assert stand_ins(desk, *verdicts) == [desk.model_id(n) for n in (8, 7, 6, 5, 4)]


def test_a_models_routes_have_its_judged_bundle_whatever_is_declared_later(make_desk: Any):
    """Also where it stands in, and where it comes back after its successor was rolled back."""
    desk = make_desk(canary=True)
    before = (desk.passed(1, bundle=desk.bundle(1)), desk.passed(2, bundle=desk.bundle(2)))
    trial = desired_state(play(desk, *before), desk.spec())
    assert trial is not None
    assert [route.bundle for route in trial.desired.routes] == [desk.bundle(1), desk.bundle(2)]

    promoted = desired_state(play(desk, *before, desk.judged(2, "canary", "passed")), desk.spec())
    assert promoted is not None
    assert [route.bundle for route in promoted.desired.routes] == [desk.bundle(2)]
    assert [route.bundle for route in promoted.stand_ins] == [desk.bundle(1)]

    rejected = desired_state(
        play(desk, *before, desk.judged(2, "canary", "passed"), desk.failed(2)), desk.spec()
    )
    assert rejected is not None
    assert [route.bundle for route in rejected.desired.routes] == [desk.bundle(1)]
    assert rejected.stand_ins[0].bundle is None  # the bare base was never judged to serve


def test_a_verdict_of_before_bundles_leaves_a_route_without(desk: Any):
    desired = desired_state(play(desk, desk.passed(1)), desk.spec())
    assert desired is not None
    assert desired.desired.routes[0].bundle is None
    assert "bundle" not in desired.model_dump(mode="json")["desired"]["routes"][0]


def test_an_engine_that_still_serves_the_revision_of_before_has_its_champion_to_stand_in(make_desk: Any):
    """Its gateway refuses the new one; the bare base must not take over from a model that it can serve."""
    desk = make_desk(canary=False)
    moved = desk.adapter(1).base.model_copy(update={"revision": "sha256:" + "9" * 64})
    judged = desk.passed(2, bundle=desk.bundle(2).model_copy(update={"base": moved}), base=moved)
    assert stand_ins(desk, desk.passed(1, bundle=desk.bundle(1)), judged) == [desk.model_id(1)]
    assert stand_ins(desk, desk.passed(1), judged) == [base_model_id(moved)]  # nobody can tell if it fits
    elsewhere = moved.model_copy(update={"name": "org/Other"})
    other = (desk.commanded(2, "promote", force=True),)
    told = (desk.passed(1, bundle=desk.bundle(1)), desk.trained(2, base=elsewhere), *other)
    assert stand_ins(desk, *told) == [base_model_id(elsewhere)]
