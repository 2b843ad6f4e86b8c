"""What a person sees of the demo, without a wheel."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from tunewheel_contracts.formats.scorecard import Slice
from tunewheel_demo.run import show_start
from tunewheel_demo.screen import Screen
from tunewheel_local.supervisor import HttpProgram, Kept, State


def screen(*, terminal: bool = False) -> tuple[Screen, StringIO]:
    found, file = Screen(), StringIO()
    found.console = Console(file=file, width=100, force_terminal=terminal)
    return found, file


def test_a_table_of_steps_tells_the_reason_for_each_and_what_came_of_it() -> None:
    found, file = screen()
    with (
        found.steps({"train 1": "learns the answers", "roll out 1": "a trial"}),
        found.bar("train 1", 62) as bar,
    ):
        bar.to(40, note="12 s left")
    done, waiting = file.getvalue().splitlines()
    assert done.startswith("✓ train 1")
    assert "62/62" in done
    assert "12 s left" in done
    assert waiting.startswith("· roll out 1")
    assert "a trial" in waiting


def test_a_step_of_no_table_is_shown_alone() -> None:
    found, file = screen()
    with found.bar("start", 3) as bar:
        bar.to(2, 3, "engine ready")
    assert "start" in file.getvalue()
    assert "engine ready" in file.getvalue()


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"broker": "starting"}, "0/4 waits for broker"),
        ({"broker": "ready"}, "1/4 waits for Kafka's topics"),
        ({"broker": "ready", "engine": "starting", "console": "ready"}, "2/4 waits for engine"),
        ({"engine": "starting", "console": "ready", "index": "restarting"}, "1/4 waits for engine, index"),
        (dict.fromkeys(("a", "b", "c", "d", "e"), "starting"), "0/4 waits for a, b, c, 2 more"),
        (dict.fromkeys(("broker", "engine", "index", "console"), "ready"), "4/4 all ready"),
    ],
)
def test_a_start_names_what_is_waited_for(states: dict[str, str], words: str) -> None:
    found, file = screen(terminal=True)
    told: dict[str, State] = {}
    with found.bar("start", 4) as bar:
        for name, state in states.items():
            program = HttpProgram(name, [], env={}, log=Path(name), ready_url="")
            show_start(bar, told, Kept(program, State(state)), 4)
        bar._progress.refresh()
        shown = Text.from_ansi(file.getvalue()).plain.splitlines()[-1]
    assert re.search(words.replace(" ", r" +\S+ +", 1), shown), shown


def test_an_answer_that_is_an_object_is_shown_as_its_values() -> None:
    found, file = screen()
    found.answers(
        ("base", "tuned"), [("Hot battery?", "word " * 99, '{"category": "safety", "urgent": true}')]
    )
    shown = file.getvalue()
    assert "safety" in shown
    assert "true" in shown
    assert "category" not in shown
    assert "…" in shown, "an answer that rambles is cut"


def test_what_is_right_too_seldom_is_told_with_its_rows_and_what_the_champion_had() -> None:
    found, file = screen()
    found.slices((subject("returns", candidate=0.25, champion=0.875), subject("safety", candidate=0.8)))
    told = " ".join(file.getvalue().split())
    assert told == "label_accuracy by label: returns 0.25 of 8, champion 0.88, safety 0.80"
    found.slices(())
    assert file.getvalue().count("\n") == 1, "nothing is said of no slices"


def subject(name: str, **figures: float) -> Slice:
    return Slice(by="label", value=name, rows=8, metric="label_accuracy", figures=figures)


def test_a_wheel_goes_on_by_itself_only_where_somebody_looks_on() -> None:
    assert screen(terminal=True)[0].is_watched
    assert not screen()[0].is_watched
    assert not Screen(quiet=True).is_watched
