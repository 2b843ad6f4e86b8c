"""Curate waits for the end of a turn, the monitor says it. Each folds the log by itself: both must see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import BY_NAME
from tunewheel_curate.turns.facts import TurnFacts
from tunewheel_monitor.turns.conclusion import conclude
from tunewheel_monitor.turns.facts import TurnLog

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts/examples"
SPEC = ProjectSpec.model_validate(
    {
        "project": "desk",
        "base_model": "org/tiny",
        "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
    }
)
START = datetime(2026, 3, 2, tzinfo=UTC)


def say(number: int, topic: str, example: str, cause: Envelope[Any] | None = None, /, **told: Any) -> Any:
    """Return an event like one of the contracts' examples but for ``told``, some minutes after START."""
    like = json.loads((EXAMPLES / topic / f"valid/{example}.json").read_text())
    names = {"project": "desk", "dataset_id": "ds-1", "run_id": "run-1", "model_id": "model-1"}
    like |= {name: value for name, value in names.items() if name in like} | told
    if "adapter" in like:
        like["adapter"] |= {"model_id": "model-1"}
    data = BY_NAME[topic].event.model_validate(like)
    return new_event(data, source="/test", cause=cause, time=START + timedelta(minutes=number))


def move(number: int, stage: str) -> Any:
    return say(number, "model.promoted", "to-production", to_stage=stage, cause=f"cause-{number}")


REQUEST = say(0, "dataset.requested", "named", reason="count", alarm_ids=[])
VERSION = say(1, "dataset.versioned", "first", REQUEST)
TRAINED = [VERSION, say(2, "train.started", "resumed"), say(3, "train.completed", "planned")]
PASSED = [*TRAINED, say(4, "eval.passed", "first")]
SERVES = [*PASSED, move(5, "production")]
ENDS = {
    # curate's word for the end, the monitor's word: the events that led to it
    ("was rejected", "failed"): [say(1, "dataset.rejected", "too-few", REQUEST)],
    ("failed in training", "failed"): [VERSION, say(2, "train.failed", "diverged")],
    ("failed its evaluation", "rejected"): [*TRAINED, say(4, "eval.failed", "missed")],
    ("was undecided in its evaluation", "undecided by evaluation"): [
        *TRAINED,
        say(4, "eval.undecided", "too-few"),
    ],
    ("was retired before it served", "retired"): [*PASSED, move(5, "canary"), move(6, "retired")],
    ("was rejected", "rejected"): [*PASSED, move(5, "rejected")],
    ("was rolled back", "rolled back"): [*SERVES, say(6, "model.rolledback", "to-champion")],
    ("was promoted", "promoted"): SERVES,
}
GOES_ON = [[], TRAINED[:1], TRAINED, PASSED, [*PASSED, move(5, "evaluated")], [*PASSED, move(5, "canary")]]


def by_topic(events: list[Any]) -> Iterator[list[Any]]:
    """Yield ``events`` as topics may be read: the order within a topic holds, and topics have none."""
    for topics in list(permutations(dict.fromkeys(event.data.type for event in events)))[::7]:
        yield [event for topic in topics for event in events if event.data.type == topic]


def ends(events: list[Any]) -> tuple[str | None, str | None]:
    """Return how the turn ended by curate and by the monitor; None: it goes on."""
    facts, log = TurnFacts(), TurnLog()
    for event in events:
        facts.apply(event)
        log.apply(event)
    (turn,), (told,) = facts.state(SPEC).turns, log.open("desk")
    done = conclude({}, told, DriftSpec(), START + timedelta(days=1))
    return turn.outcome if turn.ended_at else None, done.outcome if done else None


@pytest.mark.parametrize(("called", "happened"), ENDS.items(), ids=[" / ".join(names) for names in ENDS])
def test_curate_and_the_monitor_see_the_same_end(called: tuple[str, str], happened: list[Any]) -> None:
    assert all(ends(order) == called for order in by_topic([REQUEST, *happened]))


@pytest.mark.parametrize("happened", GOES_ON, ids=len)
def test_they_see_none_of_a_turn_that_goes_on(happened: list[Any]) -> None:
    assert all(ends(order) == (None, None) for order in by_topic([REQUEST, *happened]))
