"""The commands of labels: what they send to the console, print, and exit with."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from tunewheel_cli.exits import Exit

from .test_reviewing import run as review

pytestmark = pytest.mark.usefixtures("home")

PROGRESS: dict[str, Any] = {
    "request_id": "alarm-1",
    "alarm_id": "alarm-1",
    "dataset_id": "ds-1",
    "requested_at": "2026-03-02T08:00:00Z",
    "number": 3,
    "state": "waiting",
    "outcome": None,
    "keywords": ["solar", "roof\x1b[2J"],
    "wanted": 20,
    "prompts": 30,
    "answered": 2,
    "out_of_scope": 1,
    "next": 4,
    "fields": [
        {"name": "category", "kind": "choice", "choices": ["solar", "battery"], "required": True},
        {"name": "days", "kind": "number", "choices": [], "required": False},
    ],
}
ITEM = {
    "number": 4,
    "of": 30,
    "state": "open",
    "completion_id": "cmpl-4",
    "messages": [{"role": "user", "content": "It hums \x1b[2J"}],
    "model_output": "the model's",
}
PLACE = "/v1/projects/desk/labels"


run = partial(review, group="label")


def test_what_waits_is_listed_first() -> None:
    ended = PROGRESS | {"request_id": "alarm-0", "state": "ended", "outcome": "covered"}
    result = run(lambda *_: (200, {"project": "desk", "requests": [ended, PROGRESS]}), "list")
    first, second = result.stdout.splitlines()
    assert first.startswith("alarm-1  2 answered of 20 wanted, 30 prompts, 1 out of scope")
    assert "solar, roof\ufffd[2J" in first
    assert "(ended: covered)" in second
    assert "no labels" in run(lambda *_: (200, {"project": "desk", "requests": []}), "list").stdout


def test_the_first_open_prompt_is_shown_with_what_its_answer_holds() -> None:
    asked: list[str] = []

    def answer(_: str, path: str, __: Any) -> tuple[int, Any]:
        asked.append(path)
        return 200, ITEM if "items" in path else PROGRESS

    result = run(answer, "show", "alarm-1")
    assert asked == [f"{PLACE}/alarm-1", f"{PLACE}/alarm-1/items/4"]
    assert "--- user\nIt hums \ufffd[2J\n--- answer\n" in result.stdout
    assert 'category: one of "solar", "battery"\ndays: number (optional)\n' in result.stdout
    assert "the model's" not in result.stdout
    assert "the model's" in run(answer, "show", "alarm-1", "4", "--output").stdout
    assert (
        json.loads(run(answer, "show", "alarm-1", "--json").stdout)["item"]["model_output"]
        == ITEM["model_output"]
    )


def test_an_answer_is_sent_as_the_console_takes_it() -> None:
    sent: list[Any] = []

    def answer(*request: Any) -> tuple[int, Any]:
        sent.append(request)
        return 200, PROGRESS

    said = '{"category": "solar"}'
    assert "next is 4" in run(answer, "answer", "alarm-1", "3", said, "--reviewer", "ann").stdout
    run(answer, "answer", "alarm-1", "4", "--out-of-scope")
    assert sent == [
        ("PUT", f"{PLACE}/alarm-1/items/3/answer?reviewer=ann", {"output": said}),
        ("PUT", f"{PLACE}/alarm-1/items/4/answer", {"out_of_scope": True}),
    ]


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (422, {"detail": "output.category: is missing; give it"}, Exit.FAILED, "output.category: is missing"),
        (503, {"detail": "the broker is away"}, Exit.UNREACHABLE, "the broker is away"),
    ],
)
def test_a_refusal_is_told_in_the_consoles_words(status: int, body: Any, code: Exit, told: str) -> None:
    result = run(lambda *_: (status, body), "answer", "alarm-1", "3", "x", "--json")
    assert result.exit_code == code
    assert told in json.loads(result.stdout)["error"]
