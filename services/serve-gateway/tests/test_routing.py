from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.formats.serving import Route, RouteRole
from tunewheel_serve_gateway.chat_request import parse_chat_request
from tunewheel_serve_gateway.errors import Unavailable, UnknownModel
from tunewheel_serve_gateway.routing import (
    DesiredProject,
    RouteTable,
    build_table,
    sticky_draw,
)
from tunewheel_testing.adapters import BASE, adapter_of, bundle_of


def desired(project: str = "desk", base: str = BASE.name, **shares: tuple[str, int]) -> DesiredProject:
    routes = tuple(
        Route(
            model_id=model,
            role=RouteRole(role),
            percent=percent,
            adapter=None if model.startswith("base") else adapter_of(model),
        )
        for role, (model, percent) in shares.items()
    )
    return DesiredProject(project, base, "prompt", routes=routes)


def built(*projects: DesiredProject, ready: Any = (), previous: RouteTable | None = None) -> RouteTable:
    return build_table(projects, set(ready), previous or RouteTable())


def test_a_canary_takes_its_share_and_no_more():
    table = built(desired(production=("a", 80), canary=("b", 20)), ready="ab")
    answers = [table.find("desk", draw=n / 100).model_id for n in range(100)]
    assert answers == ["b"] * 20 + ["a"] * 80


@given(st.text(min_size=1), st.integers(0, 100))
def test_a_user_stays_with_a_model_and_only_moves_to_the_canary_as_it_grows(user: str, percent: int):
    draw = sticky_draw("desk", user)
    assert 0 <= draw < 1
    assert draw == sticky_draw("desk", user)
    small = built(desired(production=("a", 100 - percent // 2), canary=("b", percent // 2)), ready="ab")
    large = built(desired(production=("a", 100 - percent), canary=("b", percent)), ready="ab")
    if small.find("desk", draw=draw).model_id == "b":
        assert large.find("desk", draw=draw).model_id == "b"


def test_sticky_draws_are_spread_evenly():
    draws = [sticky_draw("desk", f"user-{n}") for n in range(4000)]
    assert 0.18 < sum(draw < 0.2 for draw in draws) / len(draws) < 0.22


def test_the_next_candidate_meets_other_users_first():
    """Of those whom a canary of 20 % took, the next canary takes a fifth again."""
    users = [f"user-{n}" for n in range(4000)]
    first = {user for user in users if sticky_draw("desk", user, "desk-1") < 0.2}
    second = {user for user in users if sticky_draw("desk", user, "desk-2") < 0.2}
    assert 0.16 < len(first & second) / len(first) < 0.24
    table = built(desired(production=("a", 80), canary=("b", 20)), ready="ab")
    assert (table.candidate("desk"), table.candidate("b"), built(desired()).candidate("desk")) == (
        "b",
        "",
        "",
    )


def test_a_canary_that_is_not_loaded_gets_nothing():
    table = built(desired(production=("a", 80), canary=("b", 20)), ready="a")
    assert {table.find("desk", draw=n / 100).model_id for n in range(100)} == {"a"}


def test_the_champion_goes_on_while_the_next_is_not_loaded():
    first = built(desired(production=("a", 100)), ready="a")
    second = built(desired(production=("b", 100)), ready="a", previous=first)
    assert second.find("desk", draw=0.5).model_id == "a"
    assert second.projects["desk"].waiting_for == "b"
    assert set(second.adapters) == {"a"}
    third = built(desired(production=("b", 100)), ready="ab", previous=second)
    assert third.find("desk", draw=0.5).model_id == "b"
    assert third.projects["desk"].waiting_for is None
    assert set(third.adapters) == {"b"}


def test_a_stand_in_is_not_forgotten_while_the_engine_has_lost_it():
    first = built(desired(production=("a", 100)), ready="a")
    lost = built(
        desired(production=("b", 100)),
        previous=built(desired(production=("b", 100)), ready="a", previous=first),
    )
    with pytest.raises(Unavailable):
        lost.find("desk", draw=0.5)
    assert set(lost.adapters) == {"a"}
    back = built(desired(production=("b", 100)), ready="a", previous=lost)
    assert back.find("desk", draw=0.5).model_id == "a"


def test_without_a_route_for_production_the_base_answers():
    assert built(desired()).find("desk", draw=0.5).upstream_model == BASE.name
    shadowed = built(desired(shadow=("b", 100)), ready="b").projects["desk"]
    assert shadowed.production is not None
    assert (shadowed.production.upstream_model, shadowed.waiting_for) == (BASE.name, None)


def test_the_base_goes_on_until_the_first_champion_is_loaded():
    first = built(desired())
    second = built(desired(production=("a", 100)), previous=first)
    assert second.find("desk", draw=0.5).upstream_model == BASE.name


def route(model_id: str) -> Route:
    return desired(production=(model_id, 100)).routes[0]


def stand_ins(
    *named: str, ready: str = "", tried: str = "", failed: str = "", previous: RouteTable | None = None
) -> list[str]:
    """Return who may stand in for ``b``, and check that the first of them that is loaded answers."""
    project = replace(desired(production=("b", 100)), stand_ins=tuple(map(route, named)))
    table = build_table(
        [project], ready, previous or RouteTable(), tried=tried + failed, failed=failed
    ).projects["desk"]
    loaded = [target for target in table.stand_ins if target.adapter is None or target.model_id in ready]
    assert table.production == (loaded[0] if loaded else None)
    assert set(table.adapters) == {target.model_id for target in table.stand_ins if target.adapter}
    return [target.model_id for target in table.stand_ins]


def test_without_anybody_before_one_that_is_loaded_stands_in_at_once():
    assert stand_ins("c", "a", ready="a") == ["a"]
    assert stand_ins("c", "a") == []  # the champion may be loaded in a moment
    assert stand_ins("c", "a", tried="b") == ["c", "a"]  # nobody answers: no time for more attempts
    assert stand_ins("base-0") == ["base-0"]


def test_the_base_does_not_take_over_while_an_engine_that_lost_the_champion_loads_it_again():
    project = replace(desired(production=("b", 100)), stand_ins=(route("base-0"),))
    served = built(project, ready="b")
    lost = built(project, previous=served)
    with pytest.raises(Unavailable):
        built(project, previous=lost).find("desk", draw=0.5)
    tried = build_table([project], (), lost, tried={"b"})
    assert tried.find("desk", draw=0.5).model_id == "base-0"


def test_for_one_that_cannot_be_loaded_the_newest_that_can_be_stands_in():
    assert stand_ins("c", "a", failed="b") == ["c", "a"]
    assert stand_ins("c", "a", failed="bc", ready="a") == ["a"]
    assert stand_ins("c", "a", failed="b", ready="ca") == ["c"]
    assert stand_ins("base-0", failed="b") == ["base-0"]


def test_the_former_model_answers_on_but_not_for_good_if_the_log_does_not_name_it():
    before = built(desired(production=("d", 100)), ready="d")
    assert stand_ins("c", ready="cd", previous=before) == ["d"]
    assert stand_ins("c", ready="cd", failed="b", previous=before) == ["c"]
    assert stand_ins("c", "d", ready="d", failed="b", previous=before) == ["d"]
    assert stand_ins("c", "d", failed="b", previous=before) == ["c", "d"]
    assert stand_ins(ready="d", failed="b", previous=before) == ["d"]  # the log names nobody
    assert stand_ins("base-0", previous=built(desired())) == [BASE.name]


def test_the_model_before_answers_unless_this_gateway_saw_another_answer():
    project = replace(desired(production=("b", 100)), before=route("a"))
    assert built(project, ready="a").find("desk", draw=0.5).model_id == "a"
    answered = built(desired(production=("d", 100)), ready="d")
    table = build_table([project], {"a", "d"}, answered, failed={"b"})
    assert table.find("desk", draw=0.5).model_id == "d"  # this gateway knows better who answered


def test_a_model_that_never_answered_here_is_waited_for():
    table = built(desired(production=("a", 100)))
    with pytest.raises(Unavailable) as caught:
        table.find("desk", draw=0.5)
    assert caught.value.retry_after is not None
    assert "a is being loaded" in caught.value.message


def test_a_model_id_is_pinned_and_a_shadow_too():
    table = built(desired(production=("a", 100), shadow=("b", 100)), ready="ab")
    assert table.find("b", draw=0.5).pinned
    assert table.find("b", draw=0.5).role is RouteRole.SHADOW
    assert table.find("desk", draw=0.0).model_id == "a"


def test_champion_and_challenger_are_named_by_what_they_are():
    table = built(desired(production=("a", 80), canary=("b", 20)), ready="ab")
    for name, model_id in (("desk/champion", "a"), ("desk/challenger", "b")):
        target = table.find(name, draw=0.5)
        assert (target.model_id, target.pinned) == (model_id, True)
    shadowed = built(desired(production=("a", 100), shadow=("b", 100)), ready="ab")
    assert shadowed.find("desk/challenger", draw=0.5).model_id == "b"
    for name in ("desk/challenger", "desk/champion"):
        with pytest.raises(UnknownModel):
            built(desired(production=("base-0", 100))).find(name, draw=0.5)


def test_the_bare_base_is_routed_under_its_id_and_asked_under_its_name():
    table = built(desired(production=("base-0123", 100)))
    target = table.find("desk", draw=0.5)
    assert (target.model_id, target.upstream_model) == ("base-0123", BASE.name)


@pytest.mark.parametrize("asked", [BASE.name, "base-0"])
def test_a_base_is_served_for_one_of_its_projects_while_all_mean_the_same(asked: str):
    """A second project on the base takes nothing from the first one's clients."""
    routes: dict[str, Any] = {"production": ("base-0", 100)}
    table = built(desired("one", **routes), desired("two", **routes), desired("three", **routes))
    assert table.find(asked, draw=0.5).project == "one"
    assert table.find(asked, draw=0.5, allowed={"three", "two"}).project == "two"
    with_canary = desired("two", production=("base-0", 90), canary=("a", 10))
    table = built(desired("one", **routes), with_canary, ready="a")
    assert table.find(asked, draw=0.5).project == "one"


OTHER_MEANINGS: list[dict[str, Any]] = [
    {"system_prompt": "another"},
    {"max_output_tokens": 7},
    {"retrieves": True},
]


@pytest.mark.parametrize("other", OTHER_MEANINGS)
@pytest.mark.parametrize("asked", [BASE.name, "base-0"])
def test_a_base_that_projects_use_in_different_ways_is_ambiguous_unless_the_key_tells(
    asked: str, other: dict[str, Any]
):
    one, two = (desired(name, production=("base-0", 100)) for name in ("one", "two"))
    table = built(one, replace(two, **other))
    with pytest.raises(UnknownModel, match="one/base, two/base"):
        table.find(asked, draw=0.5)
    assert table.find(asked, draw=0.5, allowed={"two"}).project == "two"


@pytest.mark.parametrize(
    ("model", "owners"),
    [
        ("desk", ["desk"]),
        ("desk/base", ["desk"]),
        ("desk/challenger", ["desk"]),
        ("a", ["desk"]),
        (BASE.name, ["desk", "two"]),
        ("desk/nobody", []),
        ("nobody", []),
    ],
)
def test_whatever_a_request_names_its_projects_are_known_before_it_is_routed(model: str, owners: list[str]):
    table = built(desired(production=("a", 100)), desired("two"), ready="a")
    assert table.owners(model) == owners


@pytest.mark.parametrize("asked", ["first", "first/base", "a", BASE.name, "base-0"])
def test_a_refusal_reveals_nothing_about_projects_of_other_keys(asked: str):
    """Nobody learns from a refusal which model a project waits for, nor which project has a model."""
    table = built(
        desired("first", production=("secret", 100), shadow=("a", 100)),
        desired("also-secret", production=("base-0", 100)),
        desired("two", base="org/Other"),
        ready="a",
    )
    told: list[dict[str, Any]] = []
    for name in (asked, "nobody"):
        with pytest.raises(UnknownModel) as caught:
            table.find(name, draw=0.5, allowed={"two"})
        told.append(json.loads(json.dumps(caught.value.payload()).replace(repr(name), "")))
    assert told[0] == told[1], "as if there were none of that name"
    assert not any(name in str(told[0]) for name in ("secret", "first", "org/", "base"))


def test_a_key_reaches_only_its_projects():
    table = built(desired("one", production=("a", 100)), desired("two"), ready="a")
    for name in ("one", "a", "three"):
        with pytest.raises(UnknownModel) as caught:
            table.find(name, draw=0.5, allowed={"two"})
        assert caught.value.message.endswith("projects here: two")


def test_a_judged_model_keeps_the_template_variables_of_its_verdict():
    judged = bundle_of("a", chat_template_kwargs={"enable_thinking": False})
    routes = tuple(
        Route(model_id=name, role=role, percent=50, adapter=adapter_of(name), bundle=bundle)
        for name, role, bundle in (("a", RouteRole.PRODUCTION, judged), ("b", RouteRole.CANARY, None))
    )
    declared = replace(desired(), routes=routes, chat_template_kwargs={"enable_thinking": True})
    table = built(declared, ready="ab").projects["desk"]
    assert table.production
    assert table.canary
    sent = [one.chat_template_kwargs for one in (table.production, table.canary, table.base)]
    assert sent == [{"enable_thinking": False}, {"enable_thinking": True}, {"enable_thinking": True}]
    request = parse_chat_request(b'{"model": "desk", "messages": [{"role": "user", "content": "hi"}]}')
    assert request.upstream_body(table.production)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in request.upstream_body(built(desired()).projects["desk"].base)
