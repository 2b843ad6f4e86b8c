"""What counts, for whom, and how much is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.turns.counting import (
    CLUSTERS_KEPT,
    MODELS_KEPT,
    REMEMBERED,
    State,
    alarmed,
    as_figures,
    beside,
    counted,
    fresh,
    in_canary,
    see,
)

from .turning import scored


def seen(*items: Any) -> State:
    state = fresh()
    for item in items:
        see(state, item)
    return json.loads(json.dumps(state))


def test_questions_near_two_alarms_count_once_for_both() -> None:
    state = seen(
        scored(1, near=("alarm-1",), novel=True),
        scored(2, near=("alarm-2", "alarm-1"), novel=True, format_valid=False),
        scored(3, near=("alarm-2",), novel=True),
        scored(4),
    )
    assert counted(state, ["alarm-1"], ["desk-1"]).questions == 2
    both = counted(state, ["alarm-1", "alarm-2"], ["desk-1"])
    assert (both.questions, both.novel, both.invalid) == (3, 3, 1)
    assert counted(state, [], ["desk-1"]).questions == 4
    assert counted(state, [], ["desk-2"]).questions == 0


def test_ratings_and_corrections_count_beside_the_questions() -> None:
    state = seen(
        scored(1, of="rating", rating="up"),
        scored(2, of="rating", rating="down", corrected=True, agrees=False),
        scored(3, of="rating", rating="down", corrected=True, agrees=True),
    )
    counts = counted(state, [], ["desk-1"])
    assert (counts.questions, counts.rated, counts.down) == (0, 3, 2)
    assert as_figures(counts) == pytest.approx(
        {"questions": 0, "ratings": 3, "thumbs_down": 2 / 3, "label_disagreement": 1 / 2}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"role": RouteRole.CANARY},
        {"role": RouteRole.SHADOW, "shadow_of": "c-0"},
        {"pinned": True},
        {"outcome": "failed"},
        {"outcome": "cancelled"},
    ],
)
def test_what_is_no_answered_traffic_of_production_is_not_counted(changes: dict[str, Any]) -> None:
    assert not seen(scored(1, **changes))


def test_answers_to_a_prompt_of_the_clients_own_say_nothing_of_the_form() -> None:
    rated = scored(3, of="rating", rating="down", agrees=False, overrides=("system_prompt",))
    assert not seen(rated) or counted(seen(rated), [], ["desk-1"]).rated == 0
    state = seen(scored(1, format_valid=False, overrides=("system_prompt",)), scored(2, format_valid=None))
    assert counted(state, [], ["desk-1"]).judged == 0


def test_an_alarm_without_a_cluster_begins_the_count_anew() -> None:
    state = seen(scored(1), scored(2, model_id="desk-2"))
    alarmed(state, "desk-1")
    assert counted(state, [], ["desk-1"]).questions == 0
    assert counted(state, [], ["desk-2"]).questions == 1


def test_a_champion_to_which_production_fell_back_again_and_again_is_still_what_was_before() -> None:
    state = fresh()
    for candidate in range(2, 2 + MODELS_KEPT):  # each served for a while and was rolled back
        see(state, scored(2 * candidate, model_id="desk-1", near=("alarm-1",)))
        see(state, scored(2 * candidate + 1, model_id=f"desk-{candidate}", near=("alarm-1",)))
    assert counted(state, ["alarm-1"], ["desk-1"]).questions == MODELS_KEPT
    assert counted(state, ["alarm-1"], ["desk-2"]).questions == 0


def test_while_a_candidate_is_in_canary_both_models_answers_are_counted_beside_each_other() -> None:
    state = fresh()
    for n, role in enumerate((RouteRole.PRODUCTION, RouteRole.CANARY) * 3):
        model_id = "desk-2" if role is RouteRole.CANARY else "desk-1"
        candidates = ["desk-2"] if n < 4 else []
        see(state, scored(n, role=role, model_id=model_id, near=("alarm-1",), of="completion"), candidates)
    see(state, scored(9, role=RouteRole.CANARY, model_id="desk-2", of="rating", rating="down"), ["desk-2"])
    see(state, scored(10, role=RouteRole.CANARY, model_id="desk-3"), ["desk-2"])
    near = [counted(state, ["alarm-1"], [name]).questions for name in ("desk-1", beside("desk-2"))]
    assert near == [3, 2]
    whole = counted(state, [], [in_canary("desk-2")])
    assert (whole.questions, whole.rated, whole.down) == (2, 1, 1)
    assert counted(state, [], ["desk-2", "desk-3", in_canary("desk-3")]).questions == 0


def test_the_state_stays_small_however_much_is_seen() -> None:
    state = fresh()
    for n in range(3 * REMEMBERED):
        near = (f"alarm-{n % 40}",)
        see(state, scored(n, model_id=f"desk-{n // 900}", near=near, novel=n % 2 == 0))
    assert len(state) == CLUSTERS_KEPT
    assert all(len(by_model) <= MODELS_KEPT for by_model in state.values())
    assert len(json.dumps(state)) < 32_000


def test_the_whole_traffic_tells_of_the_last_few_thousand() -> None:
    state = fresh()
    for n in range(4 * REMEMBERED):
        see(state, scored(n, format_valid=n < 2 * REMEMBERED))
    counts = counted(state, [], ["desk-1"])
    assert counts.questions <= REMEMBERED
    assert counts.invalid / counts.judged > 0.75
