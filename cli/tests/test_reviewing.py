"""The commands of reviews: what they send to the console, print, and exit with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tunewheel_cli.exits import Exit
from tunewheel_cli.frame import app
from tunewheel_testing.http import answering
from typer.testing import CliRunner, Result

PROGRESS: dict[str, Any] = {
    "review_id": "rev-1",
    "state": "waiting",
    "outcome": None,
    "items": 60,
    "answered": 12,
    "reviewers": 3,
    "submitted": 1,
    "next": 13,
    "verdict": None,
    "takes_verdict": True,
    "requested_at": "2026-03-02T08:00:00Z",
}
LISTED = {"project": "desk", "reviewer": "ann"}
REVEALED = {
    "run_id": "run-1",
    "candidate_is": ["left"],
    "candidate": "desk-2",
    "other": "desk-1",
    "preferences": {"better": 40, "worse": 20},
}
ITEM = {
    "number": 13,
    "of": 60,
    "messages": [{"role": "user", "content": "How?"}],
    "left": "so \x1b[2J",
    "right": "thus",
    "expected": "the expert's",
    "answer": None,
}


def run(answer: Callable[[str, str, Any], tuple[int, Any]], *command: str, group: str = "review") -> Result:
    """Run a command of ``group`` against a console that answers by method, path with query, and body."""

    async def call() -> Result:
        told = lambda request, body: answer(request.method, request.path_qs, body)  # noqa: E731
        async with answering(told) as url:
            words, env = [group, *command, "-p", "desk"], {"TUNEWHEEL_URL": url}
            return await asyncio.to_thread(partial(CliRunner().invoke, app, words, env=env))

    return asyncio.run(call())


pytestmark = pytest.mark.usefixtures("home")


def test_what_waits_is_listed_first() -> None:
    ended = PROGRESS | {"review_id": "rev-0", "state": "ended", "outcome": "passed"}
    result = run(lambda *_: (200, LISTED | {"reviews": [ended, PROGRESS]}), "list")
    first, second = result.stdout.splitlines()
    assert first.startswith("rev-1  waiting  you answered 12, of 60 items in all; 1 of 3 people submitted")
    assert second.startswith("rev-0  ended: passed")
    assert "no review" in run(lambda *_: (200, LISTED | {"reviews": []}), "list").stdout


def test_pairs_of_a_trial_ask_for_no_verdict() -> None:
    trial = PROGRESS | {"review_id": "compare-1", "takes_verdict": False, "next": None}
    assert "people submitted" not in run(lambda *_: (200, LISTED | {"reviews": [trial]}), "list").stdout
    shown = run(lambda *_: (200, trial), "show", "compare-1").stdout
    assert "none is left now" in shown
    assert "submit" not in shown


def test_the_first_item_that_is_not_answered_is_shown_and_steers_no_terminal() -> None:
    asked: list[str] = []

    def answer(_: str, path: str, __: Any) -> tuple[int, Any]:
        asked.append(path)
        return 200, ITEM if "items" in path else PROGRESS

    result = run(answer, "show", "rev-1")
    assert asked == [f"/v1/projects/desk/reviews/rev-1{rest}" for rest in ("", "/items/13")]
    assert "12 of 60 answered; next is 13" in result.stdout
    assert "--- left\nso �[2J\n--- right\nthus\n" in result.stdout
    assert "expert" not in result.stdout
    assert "--- expected\nthe expert's" in run(answer, "show", "rev-1", "13", "--expected").stdout
    assert json.loads(run(answer, "show", "rev-1", "--json").stdout)["item"]["left"] == ITEM["left"]


def test_an_answer_and_a_verdict_are_sent_as_the_console_takes_them() -> None:
    sent: list[Any] = []

    def answer(*request: Any) -> tuple[int, Any]:
        sent.append(request)
        done = PROGRESS | {"state": "submitted", "verdict": "approved", "revealed": REVEALED}
        return (201, done) if request[0] == "POST" else (200, PROGRESS)

    place = "/v1/projects/desk/reviews/rev-1"
    run(answer, "answer", "rev-1", "13", "left", "--reason", "tone", "--corrected", "so")
    result = run(answer, "submit", "rev-1", "approve", "--comment", "fine", "--reviewer", "ann")
    assert sent == [
        ("PUT", f"{place}/items/13/answer", {"choice": "left", "reasons": ["tone"], "corrected": "so"}),
        ("POST", f"{place}/submit?reviewer=ann", {"verdict": "approved", "comment": "fine"}),
    ]
    assert "approved by you. The candidate was desk-2, compared with desk-1: better 40" in result.stdout


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (409, {"detail": "items: 2 of 2 are not answered"}, Exit.FAILED, "items: 2 of 2 are not answered"),
        (422, {"detail": [{"loc": ["body", "verdict"], "msg": "is odd"}]}, Exit.FAILED, "verdict: is odd"),
        (503, {"detail": "the broker is away"}, Exit.UNREACHABLE, "the broker is away"),
        (
            403,
            {"error": {"message": "bob lacks the role reviewer"}},
            Exit.NOT_ALLOWED,
            "bob lacks the role reviewer",
        ),
        (500, "oh", Exit.UNREACHABLE, "oh"),
    ],
)
def test_a_refusal_is_told_in_the_consoles_words(status: int, body: Any, code: Exit, told: str) -> None:
    result = run(lambda *_: (status, body), "submit", "rev-1", "reject", "--json")
    assert result.exit_code == code
    assert told in json.loads(result.stdout)["error"]
