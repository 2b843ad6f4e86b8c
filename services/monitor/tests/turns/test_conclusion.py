"""Whether it helped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.monitoring import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.turns.conclusion import PATIENCE, _judged, conclude, difference
from tunewheel_monitor.turns.counting import Counts, State, fresh, see

from .test_facts import only
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


def end(items: Iterable[Any], story: Story | None = None, *, days: float = 0.5) -> TurnCompleted | None:
    if story is None:
        story = Story()
        story.until_production()
    state: State = fresh()
    for item in items:
        see(state, item)
    return conclude(state, only(story), SPEC, story.events[-1].time + timedelta(days=days))


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


def test_what_helped_tells_of_a_new_subject_that_is_never_right() -> None:
    done = end([*BAD, *traffic("desk-2", 80, novel=0.05, rated=40, down=0.2)])
    assert done is not None
    told = {name: (done.before[name], one) for name, one in done.after.items() if " of " in name}
    named = {name.removeprefix("held_out_label_accuracy of "): figures for name, figures in told.items()}
    assert named == {"horn": (0.8, 0.7), "water": (0.0, 0.0), "solar": (0.0, 0.8)}  # bell is as it was
    assert "water: 0% of its held-out rows right before, 0% after" in done.reasons


@pytest.mark.parametrize(
    ("after", "outcome", "because"),
    [
        (traffic("desk-2", 80, novel=1.0, rated=40, down=0.8), "did not help", "as novel to the new version"),
        (traffic("desk-2", 800, novel=0.1, rated=40, down=1.0), "did not help", "+20.0 points"),
        (traffic("desk-2", 80, novel=0.1, rated=40, down=0.8, invalid=0.5), "did not help", "invalid"),
        (traffic("desk-2", 80, novel=0.1, rated=40, down=0.75), "undecided", "too few to tell"),
        (traffic("desk-2", 20, rated=5, down=0.0), "undecided", "20 of these questions"),
        (traffic("desk-2", 80, novel=0.1), "undecided", "too few people"),
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
        _judged(*(
            Counts(
                questions=100, measured=100, judged=100, rated=ratings, invalid=draw.binomial(100, 0.02),
                novel=draw.binomial(100, new), down=draw.binomial(ratings, bad),
            )
            for new, bad in zip(novel, down, strict=True)
        ))[0]
        for _ in range(1_000)
    ]  # fmt: skip
    assert outcomes.count("did not help") <= 20


def test_a_turn_that_changed_nothing_is_said_to_help_by_luck_alone() -> None:
    draw = np.random.default_rng(7)

    def traffic() -> Counts:
        novel, down = draw.binomial(5_000, 0.2), draw.binomial(2_000, 0.3)
        return Counts(questions=5_000, measured=5_000, rated=2_000, novel=novel, down=down)

    many = [_judged(traffic(), traffic())[0] for _ in range(500)]
    assert many.count("helped") <= 10
    assert many.count("did not help") >= 450
