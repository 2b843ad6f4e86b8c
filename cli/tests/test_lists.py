"""The nouns of the API on the terminal: lists, one of each, beginnings of ids, JSON."""

from __future__ import annotations

import json
from threading import Thread
from time import sleep
from typing import Any

import pytest
from tunewheel_cli import texts
from tunewheel_contracts.api.services import GroupLag
from tunewheel_testing.console import Console
from tunewheel_testing.story import Story, model_of

DATASET = "ds-0123456789abcdef0123456789abcdef"
RUN = f"run-{DATASET}"


@pytest.fixture
def told(console: Console) -> Console:
    """A console that has read of a turn to its verdict, and of an alarm."""
    story = Story("desk")
    story.say("project.declared")
    version = story.version(story.request(), DATASET)
    story.train("started", DATASET)
    story.train("progressed", DATASET)
    story.train("completed", DATASET)
    story.judge("eval.passed", DATASET)
    story.say("drift.detected", dataset_id=DATASET)
    assert version.data.dataset_id == DATASET
    console.read(*story.events)
    return console


LISTS = [
    ("project list", "desk"),
    ("run list -p desk", RUN),
    ("turn list -p desk", RUN),
    ("alarm list -p desk", DATASET),
]


@pytest.mark.parametrize(("words", "name"), LISTS)
def test_a_list_names_full_ids_also_where_the_columns_are_few(
    words: str, name: str, told: Console, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = run(*words.split()).stdout
    assert name in shown.split()
    (one,) = json.loads(run(*words.split(), "--json").stdout)["items"]
    assert name in one.values()


@pytest.mark.parametrize(
    ("words", "among", "others"),
    [
        ("run list -p desk --state", "completed", "paused"),
        ("turn list -p desk --state", "in flight", "ended"),
        ("alarm list -p desk --state", "open", "resolved"),
    ],
)
def test_a_list_holds_only_what_is_in_the_state_that_is_asked_for(
    words: str, among: str, others: str, told: Console, run: Any
) -> None:
    counts = [
        len(json.loads(run(*words.split(), state, "--json").stdout)["items"]) for state in (among, others)
    ]
    assert counts == [1, 0]


@pytest.mark.parametrize(
    "words", ["project show -p desk", "run show RUN -p desk", "turn show -p desk", "alarm show -p desk"]
)
def test_one_of_each_is_shown_as_text_and_as_json(words: str, told: Console, run: Any) -> None:
    typed = words.replace("RUN", RUN).split()
    assert "desk" in run(*typed, "--json").stdout
    assert run(*typed).stdout.strip()


@pytest.mark.parametrize("name", [RUN, RUN[:12], "latest"])
def test_an_id_may_be_its_beginning_or_latest(name: str, told: Console, run: Any) -> None:
    assert json.loads(run("run", "show", name, "-p", "desk", "--json").stdout)["run_id"] == RUN


def test_an_unknown_name_is_told_with_its_field_and_exit_code(told: Console, run: Any) -> None:
    said = run("run", "show", "run-nope", "-p", "desk", code=1)
    assert "run" in said.stderr
    assert (
        json.loads(run("run", "show", "run-nope", "-p", "desk", "--json", code=1).stdout)["kind"]
        == "NotFound"
    )


def test_the_status_tells_groups_that_are_behind_and_what_to_do(told: Console, run: Any) -> None:
    told.lags += [
        GroupLag(group="train.dataset-versioned", service="train", topic="dataset.versioned", behind=1234),
        GroupLag(group="eval.train-completed", service="eval", topic="train.completed", visible=False),
    ]
    shown = run("status")
    assert "train.dataset-versioned dataset.versioned 1,234" in " ".join(shown.stdout.split())
    assert "may not see the groups eval.train-completed" in shown.stdout
    assert "\n  alarm: " in shown.stdout
    whole = json.loads(run("status", "-p", "desk", "--json").stdout)
    assert (whole["running"], [one["project"] for one in whole["projects"]]) == (False, ["desk"])
    run("status", "-p", "nope", code=1)


def test_detectors_are_listed_with_a_curve_up_to_their_floor(told: Console, run: Any) -> None:
    story = Story("desk")
    effects, at = (-0.01, 0.0, 0.0075, 0.015, 0.9), "2026-11-26T10:00:00Z"
    columns = dict.fromkeys(("statistic", "effect", "p_value"), effects)
    story.say(
        "window.judged", figure_id="desk/novelty", detector="novelty", family="input", model_id="desk-1",
        dataset_id=DATASET, state="near", windows=5, judged_at=at, effect=0.9, floor=0.015,
        series=columns | {"ended_at": (at,) * 5, "items": (100,) * 5},
    )  # fmt: skip
    silent = {"state": "silent", "windows": 0, "effect": None, "floor": None, "series": {}}
    quiet = story.events[-1].data.model_dump() | {"figure_id": "desk/labels", "detector": "labels"} | silent
    story.say("window.judged", **{name: value for name, value in quiet.items() if name != "project"})
    assert run("detector", "list", "-p", "desk").stdout == "no window of desk was judged yet\n"
    told.read(*story.events)
    labels, novelty = sorted(run("detector", "list", "-p", "desk").stdout.splitlines()[1:])
    assert (labels.split()[1], novelty.split()[1]) == ("silent", "near")
    assert "▁▁▄██" in novelty
    (first, second) = json.loads(run("detector", "list", "-p", "desk", "--json").stdout)["items"]
    assert {first["detector"], second["detector"]} == {"novelty", "labels"}


def test_events_are_followed_until_one_of_a_type(told: Console, run: Any) -> None:
    story = Story("desk")
    story.train("progressed", DATASET)
    story.train("failed", DATASET)

    def tell() -> None:
        while not told.feed._readers:  # the command is not connected yet
            sleep(0.01)
        told.read(*story.events)

    Thread(target=tell, daemon=True).start()
    lines = run("watch", "-p", "desk", "--until", "train.failed").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["train.progressed", "train.failed"]
    assert "there is no topic 'nope'" in run("watch", "--topic", "nope", code=2).stderr


def test_a_page_says_that_there_is_more(told: Console, run: Any) -> None:
    story = Story("other")
    story.say("project.declared")
    told.read(*story.events)
    said = run("project", "list", "--limit", "1")
    assert len(said.stdout.splitlines()) == 2
    assert said.stderr == "1 of 2; --limit shows more\n"
    assert run("project", "list").stderr == ""


def test_the_project_is_that_of_the_folder_or_of_the_environment(
    told: Console, run: Any, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--project: no project is named" in run("run", "list", code=2).stderr
    (home / "project.yaml").write_text("# ours\nproject: desk # the desk\n")
    assert RUN in run("run", "list").stdout
    monkeypatch.setenv("TUNEWHEEL_PROJECT", "nope")
    assert json.loads(run("run", "list", "--json", code=1).stdout)["field"] == "project"


def test_a_project_that_is_no_name_is_a_usage_error(run: Any) -> None:
    assert "'a/b' is no project's name" in run("run", "list", "-p", "a/b", code=2).stderr


def test_only_named_columns_give_way_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("run-" + "0" * 40, "because " * 20)]
    monkeypatch.setenv("COLUMNS", "80")
    texts.print_table(("run", "why"), rows, shorten=("why",))
    assert rows[0][1].strip() in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    texts.print_table(("run", "why"), rows, shorten=("why",))
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(rows[0][0])
    assert (len(line), line[-1]) == (80, "…")
    texts.print_table(("run",), rows[:1] and [("run-" + "0" * 100,)], shorten=())
    assert "run-" + "0" * 100 in capsys.readouterr().out


def test_what_others_wrote_controls_no_terminal() -> None:
    assert texts.flat("a\x1b[2J\nb") == "a\ufffd[2J b"


def test_ids_are_completed_from_the_api_and_errors_complete_nothing(
    told: Console, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def completed(typed: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
        monkeypatch.setenv("_TUNEWHEEL_COMPLETE", "complete_bash")
        try:
            return run().stdout.split()
        finally:
            monkeypatch.delenv("_TUNEWHEEL_COMPLETE")

    monkeypatch.setattr("tunewheel_cli.calling.COMPLETION_SECONDS", 60.0)
    assert completed("tunewheel run list -p d") == ["desk"]
    assert completed("tunewheel run show -p desk r") == [RUN]
    assert completed("tunewheel run show -p nope r") == []
    monkeypatch.setenv("TUNEWHEEL_URL", "http://127.0.0.1:9")
    assert completed("tunewheel run list -p d") == []
    assert model_of(DATASET)
