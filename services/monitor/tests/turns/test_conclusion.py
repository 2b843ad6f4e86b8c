"""Whether it helped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.fold import Facts, tick
from tunewheel_monitor.rollout.counting import new_trial
from tunewheel_monitor.state import ProjectState
from tunewheel_monitor.turns.conclusion import PATIENCE, changes, conclude, difference, judged
from tunewheel_monitor.turns.counting import Counts, State, fresh, see

from ..conftest import spec_of
from .test_facts import log_of, only
from .turning import Story, scored

SPEC = DriftSpec(window=100)


def traffic(
    model_id: str, questions: int, *, novel: float = 0.0, rated: int = 0, down: float = 0.0,
    invalid: float = 0.0, near: tuple[str, ...] = ("alarm-1",),
) -> list[Any]:  # fmt: skip
    """Return so many questions with exactly these shares of novel, invalid and badly rated ones."""
    common: dict[str, Any] = {"model_id": model_id, "near": near}
    asked = [
        scored(n, novel=n < novel * questions, format_valid=n >= invalid * questions, **common)
        for n in range(questions)
    ]
    thumbs = ("down" if n < down * rated else "up" for n in range(rated))
    return asked + [scored(n, of="rating", rating=thumb, **common) for n, thumb in enumerate(thumbs)]


def end(
    items: Iterable[Any], story: Story | None = None, *, days: float = 0.5, guarded: bool = False
) -> TurnCompleted | None:
    if story is None:
        story = Story()
        story.until_production()
    state: State = fresh()
    for item in items:
        see(
            state, item, ["desk-2"] if item.role is RouteRole.CANARY or item.completion_id == "beside" else ()
        )
    now = story.events[-1].time + timedelta(days=days)
    return conclude(state, only(story), SPEC, now, guarded=guarded)


def outcome_of(before: Counts, after: Counts) -> str:
    return judged(changes(before, after), before)[0]


BAD = traffic("desk-1", 80, novel=1.0, rated=40, down=0.8)


def test_it_helped_where_people_find_the_answers_better() -> None:
    done = end([*BAD, *traffic("desk-2", 80, novel=0.05, rated=40, down=0.2)])
    assert done is not None
    assert done.outcome == "helped"
    assert done.alarm_ids == ("alarm-1",)
    assert (done.before["thumbs_down"], done.after["thumbs_down"]) == (0.8, 0.2)
    assert (done.before["novel"], done.after["novel"]) == (1.0, 0.05)
    assert done.after["thumbs_down_change_high"] < 0
    assert done.before["held_out_label_accuracy"] == 0.5
    assert done.cost == {"labels": 150.0, "hours": 0.5}
    assert len(done.verdicts) == 2
    assert not done.next_step
    assert done.began_at < done.ended_at
    assert any("thumbs_down: 80.0% of 40 before, 20.0% of 40 after" in reason for reason in done.reasons)


STILL_NOVEL = [*traffic("desk-1", 40, novel=1.0), *traffic("desk-2", 120, novel=1.0, rated=40, down=0.8)]


@pytest.mark.parametrize(
    ("after", "outcome", "because"),
    [
        (STILL_NOVEL, "did not help", "as novel to the new version"),
        (traffic("desk-2", 800, novel=0.1, rated=40, down=1.0), "did not help", "+20.0 points"),
        (traffic("desk-2", 80, novel=0.1, rated=40, down=0.8, invalid=0.5), "did not help", "invalid"),
        (traffic("desk-2", 80, novel=0.1, rated=40, down=0.75), "undecided", "thumbs_down: 80.0% of 40"),
        (traffic("desk-2", 20, rated=5, down=0.0), "undecided", "20 of these questions"),
        (traffic("desk-2", 80, novel=0.1), "undecided", "80 of these questions and 0 ratings"),
    ],
    ids=["still novel", "thumbs worse", "format broken", "no telling", "nobody asks", "nobody rates"],
)
def test_what_did_not_help_is_a_persons_next(after: list[Any], outcome: str, because: str) -> None:
    done = end([*BAD, *after], days=PATIENCE.days + 1)
    assert done is not None
    assert done.outcome == outcome
    assert any(because in reason for reason in done.reasons), done.reasons
    assert done.next_step


def test_many_ratings_that_are_as_they_were_show_that_nothing_came_of_it() -> None:
    many = traffic("desk-1", 80, novel=1.0, rated=1_000, down=0.5)
    done = end([*many, *traffic("desk-2", 80, novel=0.05, rated=1_000, down=0.5)])
    assert done is not None
    assert done.outcome == "did not help"


def test_it_waits_for_questions_and_for_ratings_until_its_patience_ends() -> None:
    few = [*BAD, *traffic("desk-2", 79, rated=30, down=0.1)]
    assert end(few) is None
    unrated = [*BAD, *traffic("desk-2", 80, rated=29, down=0.1)]
    assert end(unrated) is None
    done = end(unrated, days=PATIENCE.days + 2)
    assert done is not None
    assert done.outcome == "helped"


def test_a_model_that_was_replaced_is_judged_by_what_it_answered() -> None:
    story = Story()
    story.until_production()
    story.moved(Stage.RETIRED)
    done = end([*BAD, *traffic("desk-2", 40, rated=12, down=0.0)], story)
    assert done is not None
    assert done.outcome == "helped"


def test_an_alarm_without_a_cluster_is_about_the_whole_traffic() -> None:
    story = Story()
    story.alarm(cluster=None, detector="format", signal="format")
    story.version(story.request())
    story.trained()
    story.moved(Stage.PRODUCTION)
    done = end(
        [*traffic("desk-1", 200, invalid=0.3, near=()), *traffic("desk-2", 200, invalid=0.02, near=())], story
    )
    assert done is not None
    assert done.outcome == "helped"


def test_without_an_alarm_there_is_nothing_to_compare() -> None:
    story = Story()
    story.version(story.request())
    story.trained()
    assert end([], story) is None
    promoted = story.moved(Stage.PRODUCTION).time
    done = end([], story)
    assert done is not None
    assert (done.outcome, done.ended_at) == ("promoted", promoted)


def test_a_refused_version_ends_the_turn_at_that_time() -> None:
    story = Story()
    story.alarm()
    story.refused(story.request())
    done = end([], story)
    assert done is not None
    assert (done.outcome, done.reasons) == ("failed", ("too few",))
    assert done.ended_at == story.events[-1].time
    assert done.next_step


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Table II of the paper, contrast (a): 56/70 against 48/80 at 95 %.
    low, high = difference((56, 70), (48, 80), error=0.05)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_equal_rates_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(7)
    now, then = rng.binomial(80, 0.4, 1_000), rng.binomial(80, 0.4, 1_000)
    intervals = [difference((a, 80), (b, 80)) for a, b in zip(now.tolist(), then.tolist(), strict=True)]
    assert sum(low > 0 or high < 0 for low, high in intervals) <= 25


@pytest.mark.parametrize("ratings", [12, 30, 100])
@pytest.mark.parametrize(
    ("novel", "down"),
    [
        ((0.2, 0.05), (0.24, 0.12)),
        ((0.15, 0.05), (0.2, 0.1)),
        ((1.0, 0.1), (0.8, 0.2)),
    ],
    ids=["a fifth", "a tenth", "a cluster"],
)
def test_a_turn_that_helped_is_seldom_called_useless_however_few_rate(
    ratings: int, novel: tuple[float, float], down: tuple[float, float]
) -> None:
    draw = np.random.default_rng(7)
    outcomes = [
        outcome_of(*(
            Counts(
                questions=100, measured=100, judged=100, rated=ratings, invalid=draw.binomial(100, 0.02),
                novel=draw.binomial(100, new), down=draw.binomial(ratings, bad),
            )
            for new, bad in zip(novel, down, strict=True)
        ))
        for _ in range(1_000)
    ]  # fmt: skip
    assert outcomes.count("did not help") <= 20


def test_a_turn_that_changed_nothing_is_said_to_help_by_luck_alone() -> None:
    draw = np.random.default_rng(7)

    def traffic() -> Counts:
        novel, down = draw.binomial(5_000, 0.2), draw.binomial(2_000, 0.3)
        return Counts(questions=5_000, measured=5_000, rated=2_000, novel=novel, down=down)

    many = [outcome_of(traffic(), traffic()) for _ in range(500)]
    assert many.count("helped") <= 10
    assert many.count("did not help") >= 450


def requested(
    prompts: int, both: int, champion: int, candidate: int, request: str = "labels-1"
) -> dict[str, Any]:
    return {
        "request_id": request, "metric": "label_accuracy", "prompts": prompts, "both_right": both,
        "only_champion": champion, "only_candidate": candidate,
    }  # fmt: skip


def asked(*rows: dict[str, Any], suggested_action: str = "collect_labels") -> Story:
    """Return a turn whose alarm has no cluster, and whose verdict tells of its held-out prompts."""
    story = Story()
    story.until_production(*rows, cluster=None, signal="novelty", suggested_action=suggested_action)
    return story


SILENT = [*traffic("desk-1", 200, novel=0.2, near=()), *traffic("desk-2", 200, novel=0.02, near=())]
"""Traffic that nobody rates."""


def test_it_helped_where_more_held_out_prompts_of_the_alarm_are_answered_rightly_without_a_rating() -> None:
    done = end(SILENT, asked(requested(18, 3, 1, 11)))
    assert done is not None
    assert done.outcome == "helped", done.reasons
    assert (done.before["wrong"], done.after["wrong"]) == pytest.approx((14 / 18, 4 / 18))
    assert (done.before["prompts"], done.after["prompts"]) == (18, 18)
    assert done.after["wrong_change_high"] < 0
    assert any(reason.startswith("wrong: 77.8% of 18 before, 22.2% of 18 after") for reason in done.reasons)


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        (requested(60, 12, 0, 0), "did not help"),
        (requested(18, 3, 0, 0), "undecided"),
        (requested(60, 10, 4, 4), "undecided"),
        (requested(18, 4, 12, 0), "did not help"),
        (requested(15, 0, 0, 15), "undecided"),
    ],
    ids=["excluded", "too few to exclude", "too wide to exclude", "worse", "fewer than are needed"],
)
def test_it_did_not_help_only_where_a_useful_improvement_is_excluded(
    rows: dict[str, Any], outcome: str
) -> None:
    done = end(SILENT, asked(rows))
    assert done is not None
    assert done.outcome == outcome, done.reasons
    assert done.next_step


@pytest.mark.parametrize(("rows", "more"), [((), 48), ((requested(10, 2, 1, 7),), 18)])
def test_with_few_held_out_prompts_it_says_how_many_more_answers_tell(rows: Any, more: int) -> None:
    done = end(SILENT, asked(*rows))
    assert done is not None
    assert (done.outcome, f"about {more} more" in done.reasons[0]) == ("undecided", True), done.reasons
    assert ("evaluation.judge" in done.reasons[0]) is (not rows), "no verdict told of any prompt"


def test_the_prompts_of_all_alarms_of_the_turn_count_and_those_of_others_do_not() -> None:
    story = Story()
    story.alarm("alarm-2", cluster=None, suggested_action="collect_labels")
    rows = [requested(9, 0, 0, 7, f"labels-{n}") for n in (1, 2, 3)]
    story.until_production(*rows, cluster=None, suggested_action="collect_labels")
    done = end(SILENT, story)
    assert done is not None
    assert (done.outcome, done.before["prompts"]) == ("helped", 18)


def test_the_latest_verdict_with_prompts_of_the_alarm_counts() -> None:
    story = asked(requested(18, 3, 0, 12))
    story.pass_time()
    story.verdict(requested=(requested(18, 2, 13, 0),))
    story.pass_time()
    story.verdict(requested=(requested(90, 0, 0, 90, "labels-9"),))
    done = end(SILENT, story)
    assert done is not None
    assert done.outcome == "did not help"


def test_nothing_is_said_as_long_as_the_model_is_guarded() -> None:
    story = asked(requested(18, 3, 1, 11))
    assert end(SILENT, story, guarded=True, days=PATIENCE.days + 9) is None
    story.moved(Stage.RETIRED)
    assert end(SILENT, story, guarded=True) is not None, "a model that left has no guard"


def test_answers_of_the_same_hours_in_canary_tell_without_a_before_and_after() -> None:
    beside = [scored(n, completion_id="beside", format_valid=n >= 30, near=("alarm-1",)) for n in range(60)]
    canary = [
        scored(n, role=RouteRole.CANARY, model_id="desk-2", format_valid=n >= 3, near=("alarm-1",))
        for n in range(60)
    ]
    done = end([*beside, *canary, *traffic("desk-2", 80)])
    assert done is not None
    assert done.outcome == "helped", done.reasons
    assert (done.before["canary_invalid"], done.after["canary_invalid"]) == (0.5, 0.05)
    assert "canary_novel_change_low" not in done.after


@pytest.mark.parametrize("guard_days", [1, 5])
def test_an_end_is_told_once_on_the_topics_of_this_release_and_the_one_before_after_the_guard(
    guard_days: int,
) -> None:
    story = asked(requested(18, 3, 1, 11))
    served_at, state = story.events[-1].time, ProjectState()
    opened = new_trial(
        stage="canary", since=served_at.timestamp(), generation=3, correlation_id=None, guard=True
    )
    state.trials["open"]["desk-2"] = opened
    for item in [*SILENT, *traffic("desk-2", 200, near=())]:
        see(state.turns, item)
    spec = spec_of("desk", rollout={"guard_seconds": guard_days * 86_400}, drift={"window": 100})
    known = Facts(spec, turns=log_of(story).open("desk"))
    told = [
        [
            (said.data.type, said.data.outcome)
            for said in tick(state, "desk", known, served_at + timedelta(days=n))
        ]
        for n in (0.9, guard_days - 0.1, guard_days + 0.1, guard_days + 0.2)
    ]
    assert told == [[], [], [("turn.completed.v2", "helped"), ("turn.completed", "helped")], []]
