"""Pages of lists: newest first, complete, and without doubles while items come."""

from __future__ import annotations

from typing import Any


def _start(state: Any, desk: Any, *names: str) -> None:
    for desk.run_id in names:
        state.apply(desk.started())


async def test_pages_follow_each_other_while_newer_items_come(state: Any, desk: Any, ask: Any):
    _start(state, desk, *(f"run-{n}" for n in range(5)))
    first = (await ask("/projects/desk/runs", limit=2)).json()
    _start(state, desk, "run-new")
    second = (await ask("/projects/desk/runs", limit=2, after=first["next"])).json()
    third = (await ask("/projects/desk/runs", limit=2, after=second["next"])).json()
    shown = [run["run_id"] for page in (first, second, third) for run in page["items"]]
    assert shown == ["run-4", "run-3", "run-2", "run-1", "run-0"]
    assert (first["total"], second["total"], third["next"]) == (5, 6, None)


async def test_a_page_that_holds_all_items_has_no_next_one(state: Any, desk: Any, ask: Any):
    _start(state, desk, "run-1", "run-2")
    page = (await ask("/projects/desk/runs", limit=2)).json()
    assert (len(page["items"]), page["next"]) == (2, None)


async def test_only_items_that_are_not_older_are_listed(state: Any, desk: Any, ask: Any):
    _start(state, desk, "run-1", "run-2", "run-3")
    second = (await ask("/projects/desk/runs/run-2")).json()["created_at"]
    page = (await ask("/projects/desk/runs", since=second)).json()
    assert ([run["run_id"] for run in page["items"]], page["total"]) == (["run-3", "run-2"], 2)


async def test_a_wrong_query_is_refused_by_its_field(state: Any, desk: Any, ask: Any):
    state.apply(desk.started())
    wrong = {"limit": 0, "after": "soon", "since": "yesterday", "state": "asleep"}
    for field, value in wrong.items():
        answer = await ask("/projects/desk/runs", **{field: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, field)
    answer = await ask("/projects/desk/runs", after="2026-01-01T00:00:00~run-1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
