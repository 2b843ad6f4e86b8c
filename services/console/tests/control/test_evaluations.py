"""Evaluations over the control API: their verdicts, and the scorecard while nobody reviews."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan, later_plan_path
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_testing.story import example


@pytest.fixture
async def judged(state: Any, desk: Any, store: Any) -> Any:
    """A run that failed its first evaluation and passed its second one."""
    card = Scorecard.model_validate(example("scorecard"))
    ref = await store.put("scorecards/sc.json", card.model_dump_json().encode())
    for event in (desk.started(), desk.trained(), desk.failed(scorecard=ref)):
        state.apply(event)
    told = desk.verdict(scorecard=ref, evaluation_id="eval-22222222")
    state.apply(desk.say("eval.passed", **told))
    return card


async def test_evaluations_are_listed_newest_first_with_their_reasons(judged: Any, ask: Any):
    page = (await ask("/projects/desk/evaluations")).json()
    shown = [(one["evaluation_id"], one["outcome"], one["reasons"]) for one in page["items"]]
    assert shown == [("eval-22222222", "passed", []), ("run-1", "failed", ["rouge_l is too low"])]
    for query in ({"outcome": "failed"}, {"outcome": "failed", "run_id": "latest"}):
        page = (await ask("/projects/desk/evaluations", **query)).json()
        assert [one["evaluation_id"] for one in page["items"]] == ["run-1"]


async def test_an_evaluation_tells_its_scorecard(judged: Scorecard, ask: Any):
    found = (await ask("/projects/desk/evaluations/eval-2")).json()
    assert Scorecard.model_validate(found["scorecard"]) == judged
    assert (found["withheld"], found["checks"][0]["passed"]) == (False, True)


async def test_figures_are_withheld_while_any_review_of_answers_is_open(
    judged: Any, state: Any, desk: Any, store: Any, ask: Any
):
    desk.run_id = "run-2"
    state.apply(await desk.stored_review(store, items=2, reviewers=1))
    found = (await ask("/projects/desk/evaluations/eval-22222222")).json()
    assert (found["withheld"], found["scorecard"], found["checks"]) == (True, None, [])
    assert (found["outcome"], found["model_id"]) == ("passed", "desk-1")


async def test_an_evaluation_that_only_informs_is_found_by_the_request_for_it(
    judged: Scorecard, state: Any, desk: Any, store: Any, ask: Any
):
    criteria = ({"metric": "rouge_l", "minimum": 0.9},)
    state.apply(desk.of_run("eval.requested", request="r", criteria=criteria))
    own = {"project": "desk", "evaluation_id": "eval-3", "scorecard_id": "sc-3", "criteria": criteria}
    plan = EvaluationPlan(**desk.run(), **own, champion=None, review_required=False)
    await store.put(later_plan_path("run-1", "eval-3"), plan.model_dump_json().encode())
    answer = await ask("/projects/desk/evaluations/eval-3")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "evaluation_id")
    await store.put(plan.scorecard_path, judged.model_dump_json().encode())
    found = (await ask("/projects/desk/evaluations/eval-3")).json()
    assert found["outcome"] == "informs"
    assert "informs" in found["informs"]


@pytest.mark.parametrize("name", ["latest", "eval-2222"])
async def test_an_evaluation_that_the_state_has_is_not_looked_for_in_the_store(
    judged: Any, state: Any, desk: Any, store: Any, ask: Any, name: str, monkeypatch: Any
):
    state.apply(desk.of_run("eval.requested", request="r"))
    read = store.read
    paths: list[str] = []
    monkeypatch.setattr(type(store), "read", lambda _, path: paths.append(path) or read(path))
    assert (await ask(f"/projects/desk/evaluations/{name}")).status_code == 200
    assert len(paths) == 1, "its scorecard"


async def test_an_unknown_evaluation_is_named(judged: Any, ask: Any):
    answer = await ask("/projects/desk/evaluations/eval-99")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "evaluation_id")


@pytest.mark.parametrize("name", ["a%00b", "x" * 300, "EVAL", "%C3%A9"])
async def test_a_name_that_no_evaluation_has_is_no_path(
    judged: Any, state: Any, desk: Any, ask: Any, name: str
):
    state.apply(desk.of_run("eval.requested", request="r"))
    answer = await ask(f"/projects/desk/evaluations/{name}")
    assert answer.status_code == 404
