"""The commands of labels: what they send to the console, print, and exit with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
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


def test_open_prompts_go_to_label_studio_and_come_back_as_answers(tmp_path: Path) -> None:
    states = [{"number": 3, "state": "answered"}, {"number": 4, "state": "open"}]
    sent: list[Any] = []

    def console(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "PUT":
            sent.append((path, body))
            return 200, PROGRESS
        return 200, ITEM if "items" in path else PROGRESS | {"items": states}

    told = json.loads(run(console, "export", "alarm-1", "--to", str(tmp_path), "--json").stdout)
    assert told["prompts"] == 1
    assert "<Choices" in Path(told["config"]).read_text()
    (task,) = json.loads(Path(told["tasks"]).read_text())
    said = {"from_name": "category", "to_name": "conversation", "value": {"choices": ["solar"]}}
    export = tmp_path / "back.json"
    times = {"created_at": "2026-03-01T10:00:00Z", "updated_at": "2026-03-02T10:00:00Z"}
    told = {"completed_by": "ann", "result": [said]} | times
    export.write_text(json.dumps([task | {"annotations": [told]}]))
    assert json.loads(run(console, "import", str(export), "--json").stdout) == {"answers": 1, "refused": []}
    body = {"output": {"category": "solar"}, "answered_at": times["updated_at"]}
    assert sent == [(f"{PLACE}/alarm-1/items/4/answer?reviewer=ann", body)]


def test_where_callers_are_known_an_import_answers_in_the_callers_name_and_tells_what_was_refused(
    tmp_path: Path,
) -> None:
    data = {"request_id": "alarm-1", "number": 4}
    said = {"from_name": "category", "to_name": "conversation", "value": {"choices": ["solar"]}}
    task = {"data": data, "annotations": [{"completed_by": "ann", "result": [said]}]}
    export = tmp_path / "back.json"
    export.write_text(json.dumps([task, task | {"data": data | {"number": 5}}]))

    def console(method: str, path: str, _: Any) -> tuple[int, Any]:
        if "reviewer" in path:
            return 422, {"error": {"message": "reviewer: is not yours", "param": "reviewer"}}
        if "/5/" in path:
            return 422, {"error": {"message": "output.days: is missing", "param": "output.days"}}
        return 200, PROGRESS

    result = run(console, "import", str(export))
    assert result.exit_code == Exit.REFUSED
    assert "1 answers were published" in result.stdout
    assert "alarm-1 item 5: " in result.stderr


@pytest.mark.parametrize("content", [None, "no JSON", "{}"])
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, content: str | None) -> None:
    export = tmp_path / "back.json"
    if content is not None:
        export.write_text(content)
    result = run(lambda *_: (200, PROGRESS), "import", str(export))
    assert result.exit_code == Exit.FAILED
    assert "JSON" in result.stderr
