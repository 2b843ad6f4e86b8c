"""What the log is told of a decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_turns.deciding import decide
from tunewheel_turns.dispatch import tell

CLUSTER = {
    "suggested_action": "collect_labels",
    "cluster": {"share": 0.5, "prompts": 20, "completion_ids": ["c-1"]},
}
Make = Callable[..., Any]


def told(desk: Any) -> TurnDecided:
    state = desk.state()
    return tell(state, decide(state, desk.now), "shop", desk.now)


def test_labels_that_are_missing_are_counted_and_a_person_is_told_where_to_answer(log: Make) -> None:
    desk = log(min_labels=5)
    desk.alarm(**CLUSTER)
    desk.alarm("alarm-2", suggested_action="investigate")
    desk.labelled = {"alarm-1": 3}
    waits = told(desk)
    assert (waits.step, waits.alarm_ids) == ("waits for labels", ("alarm-1",))
    assert "label list --project shop" in waits.next_step
    answers = [(one.alarm_id, one.follows, one.labels, one.labels_needed) for one in waits.alarms]
    assert answers == [("alarm-1", "collect_labels", 3, 5), ("alarm-2", "investigate", None, None)]


def test_approval_names_its_command_and_the_months_budget_is_told_beside(log: Make) -> None:
    desk = log(approval=True, budget={"gpu_hours": 2.0})
    desk.train(desk.version(desk.ask(), "ds-1"))
    desk.trained("ds-1", wall_seconds=1800)
    desk.move("ds-1", "production")
    desk.alarm()
    waits = told(desk)
    assert waits.step == "waits for approval"
    assert "`tunewheel dataset build --project shop`" in waits.next_step
    assert (waits.spent, waits.limits) == ({"gpu_hours": 0.5}, {"gpu_hours": 2.0})


def test_a_wait_that_the_clock_ends_says_until_when(log: Make) -> None:
    desk = log(alarm_seconds=600)
    desk.alarm()
    waits = told(desk)
    assert (waits.step, waits.next_step) == ("waits until the alarm lasts", "")
    assert waits.until is not None
    assert waits.event_id() == told(desk).event_id()


def test_what_the_documents_lack_is_named_beside_all_else_that_waits(log: Make) -> None:
    desk = log(min_labels=5)
    cluster = {"share": 0.2, "prompts": 90, "completion_ids": ["c-1"], "keywords": ["solar", "roof"]}
    desk.alarm(signal="documents", suggested_action="update_documents", cluster=cluster)
    alone = told(desk)
    publish = "Publish documents about solar, roof: `tunewheel publish FILES --project shop`."
    assert (alone.step, alone.next_step) == ("a person should look", publish)
    desk.alarm("alarm-2", **CLUSTER)
    both = told(desk)
    assert both.step == "waits for labels"
    assert both.next_step.startswith(f"{publish} Answer the questions that wait")
