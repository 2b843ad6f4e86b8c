from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ModelRolledback, Stage
from tunewheel_registry.lifecycle import LEGAL, apply
from tunewheel_registry.state import State, base_model_id, written

PATHS: dict[Stage, tuple[Stage, ...]] = {
    Stage.REGISTERED: (),
    Stage.UNDECIDED: (Stage.UNDECIDED,),
    Stage.EVALUATED: (Stage.EVALUATED,),
    Stage.SHADOW: (Stage.EVALUATED, Stage.SHADOW),
    Stage.CANARY: (Stage.EVALUATED, Stage.CANARY),
    Stage.PRODUCTION: (Stage.EVALUATED, Stage.PRODUCTION),
    Stage.RETIRED: (Stage.EVALUATED, Stage.PRODUCTION, Stage.RETIRED),
    Stage.REJECTED: (Stage.REJECTED,),
    Stage.ROLLED_BACK: (Stage.EVALUATED, Stage.CANARY, Stage.ROLLED_BACK),
}


def registration(desk: Any, n: int = 1) -> ModelRegistered:
    adapter = desk.adapter(n)
    return ModelRegistered(
        project=desk.project,
        model_id=adapter.model_id,
        kind="adapter",
        base=adapter.base,
        adapter=adapter,
        run_id=f"run-{n}",
        dataset_id=f"ds-{n}",
    )


def move(state: State, desk: Any, to_stage: Stage, *, cause: str = "c", n: int = 1) -> State:
    model_id = desk.model_id(n)
    return apply(state, event_to(state.models[model_id].stage, to_stage, desk, cause=cause, n=n))


def event_to(from_stage: Stage, to_stage: Stage, desk: Any, *, cause: str, n: int = 1) -> Any:
    common = {"project": desk.project, "model_id": desk.model_id(n), "cause": cause, "reason": "r"}
    if to_stage is Stage.ROLLED_BACK:
        return ModelRolledback(from_stage=written(from_stage), restored=None, **common)
    undecided = to_stage is Stage.UNDECIDED
    return ModelPromoted(
        from_stage=written(from_stage), to_stage=written(to_stage), undecided=undecided, held_up=undecided,
        **common,
    )  # fmt: skip


def state_in(stage: Stage, desk: Any) -> State:
    state = apply(State(desk.project), registration(desk))
    for step in PATHS[stage]:
        state = move(state, desk, step)
    return state


@pytest.mark.parametrize(("from_stage", "to_stage"), list(product(Stage, Stage)))
def test_every_pair_of_stages_is_either_legal_or_refused(desk: Any, from_stage: Stage, to_stage: Stage):
    state = state_in(from_stage, desk)
    event = event_to(from_stage, to_stage, desk, cause="another")
    if to_stage in LEGAL[from_stage]:
        assert apply(state, event).models[desk.model_id(1)].stage is to_stage
    else:
        with pytest.raises(InvalidEvent, match=f"{to_stage.value} cannot follow {from_stage.value}"):
            apply(state, event)


def test_the_table_names_every_stage_and_from_its_ends_only_a_person_leads_away():
    assert set(LEGAL) == set(Stage)
    for end in (Stage.REJECTED, Stage.ROLLED_BACK):
        assert LEGAL[end] == {Stage.PRODUCTION, Stage.REJECTED}


def test_an_event_applied_twice_changes_nothing(desk: Any):
    before = state_in(Stage.EVALUATED, desk)
    event = event_to(Stage.EVALUATED, Stage.CANARY, desk, cause="x")
    once = apply(before, event)
    assert apply(once, event) is once
    assert apply(once, registration(desk)) is once
    assert once.generation == before.generation + 1


def test_a_transition_from_elsewhere_names_the_field(desk: Any):
    with pytest.raises(InvalidEvent) as caught:
        apply(state_in(Stage.REGISTERED, desk), event_to(Stage.CANARY, Stage.PRODUCTION, desk, cause="x"))
    assert caught.value.field == "from_stage"
    assert "is in registered" in caught.value.reason


def test_an_unknown_model_is_refused(desk: Any):
    with pytest.raises(InvalidEvent, match="not registered in project desk"):
        apply(State(desk.project), event_to(Stage.REGISTERED, Stage.EVALUATED, desk, cause="x"))


def test_a_known_id_cannot_be_registered_with_other_content(desk: Any):
    state = state_in(Stage.REGISTERED, desk)
    with pytest.raises(InvalidEvent, match="registered already"):
        apply(state, registration(desk).model_copy(update={"run_id": "run-other"}))


def test_a_base_model_has_no_stages(desk: Any):
    base = desk.adapter(1).base
    base_id = base_model_id(base)
    state = apply(
        State(desk.project), ModelRegistered(project=desk.project, model_id=base_id, kind="base", base=base)
    )
    event = ModelPromoted(
        project=desk.project,
        model_id=base_id,
        from_stage=Stage.REGISTERED,
        to_stage=Stage.EVALUATED,
        cause="c",
        reason="r",
    )
    with pytest.raises(InvalidEvent, match="is a base model"):
        apply(state, event)


def test_the_newest_of_two_production_models_is_the_champion_whatever_the_registration_order(desk: Any):
    for first, second in ((1, 2), (2, 1)):
        state = apply(apply(State(desk.project), registration(desk, 1)), registration(desk, 2))
        for n in (first, second):
            state = move(state, desk, Stage.EVALUATED, n=n)
        state = move(state, desk, Stage.PRODUCTION, n=first)
        takes_over = event_to(Stage.EVALUATED, Stage.PRODUCTION, desk, cause="c", n=second)
        state = apply(state, takes_over.model_copy(update={"replaces": desk.model_id(first)}))
        assert state.champion is not None
        assert state.champion.model_id == desk.model_id(second)
