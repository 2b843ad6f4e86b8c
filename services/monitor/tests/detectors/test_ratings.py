"""Who may say how much of answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.detectors import Opening, evidence
from tunewheel_monitor.detectors.corrections import Corrections
from tunewheel_monitor.detectors.feedback import Feedback
from tunewheel_monitor.detectors.ratings import Votes, counts, opened

from .conftest import START, alarms, opening, rating, windows


def rated(rng: Any, count: int, rate: float, *, days: int = 10) -> list[Any]:
    """Return ratings of many users by the application's key."""
    return [
        rating("down" if rng.random() < rate else "up", user=f"u-{rng.integers(10**6)}", client="app",
               at=START + timedelta(days=n * days / count))
        for n in range(count)
    ]  # fmt: skip


def test_a_user_has_one_vote_a_day():
    voters = opened(opening())
    one = {"user": "u-1", "client": "app"}
    assert [counts(voters, rating(**one)) for _ in range(3)] == [True, False, False]
    assert counts(voters, rating(at=START + timedelta(days=1), **one))
    assert counts(voters, rating(user=None, client="app"))


def test_what_people_say_of_an_answer_to_a_prompt_of_the_clients_own_is_no_vote():
    detector = Feedback()
    rng = np.random.default_rng(3)
    before = detector.open(opening())
    windows(detector, before, rated(rng, 1_100, 0.1))
    votes = rated(rng, 300, 1.0)
    replaced = [one.model_copy(update={"overrides": ("system_prompt",)}) for one in votes]
    told = [windows(detector, detector.open(opening(predecessor=before)), some) for some in (votes, replaced)]
    assert alarms(told[0])
    assert not alarms(told[1])


def test_from_10_to_30_in_a_hundred_is_seen_within_200_ratings():
    rng = np.random.default_rng(1)
    detector = Feedback()
    before = detector.open(opening())
    windows(detector, before, rated(rng, 1_100, 0.1))
    seen = [
        bool(
            alarms(
                windows(detector, detector.open(opening(predecessor=before)), rated(rng, 200, rate), size=20)
            )
        )
        for rate in (0.3, 0.1)
        for _ in range(20)
    ]
    assert sum(seen[:20]) >= 17
    assert sum(seen[20:]) == 0


def until_heard(detector: Votes, a_day: int, *, named: bool) -> int:
    """Return how many ratings an alarm takes from 09:00 on, when bad ones rise from 10 % to 60 %."""
    rng, rise, state = np.random.default_rng((5, a_day)), a_day * 9 // 24, detector.open(opening())
    for n in range(a_day):
        bad = bool(rng.random() < (0.1 if n < rise else 0.6))
        at, user = START + timedelta(days=n / a_day), f"u-{n}" if named else None
        detector.see(state, rating("down" if bad else "up", corrected=bad, client="app", user=user, at=at))
        if n % 20 == 0 and (finding := detector.look(state)) is not None and finding.drifted:
            return n - rise
    return a_day


@pytest.mark.parametrize("a_day", [1_000, 3_000, 10_000])
@pytest.mark.parametrize("detector", [Feedback(), Corrections()], ids=lambda one: one.name)
def test_a_project_of_many_named_raters_is_heard_at_every_hour(a_day: int, detector: Votes):
    named, unnamed = (until_heard(detector, a_day, named=named) for named in (True, False))
    assert 0 <= unnamed <= 100
    assert 0 <= named <= unnamed + 100


def test_one_user_among_thousands_has_at_most_one_vote_in_two_thousand():
    voters = opened(opening())
    crowd = [rating(user=f"u-{n}", client="app") for n in range(10_000)]
    assert sum(counts(voters, one) for one in crowd) > 8_000
    voters, loud = opened(opening()), rating("down", user="loud", client="app")
    assert sum(counts(voters, loud) for one in crowd if counts(voters, one) or True) <= 5


def test_a_state_of_an_earlier_release_counts_on():
    voters = opened(opening())
    voters["voted"] = list(range(500))
    del voters["marks"]
    assert [counts(voters, rating(user="u-1", client="app")) for _ in range(2)] == [True, False]


def test_a_key_that_invents_users_cannot_poison():
    rng = np.random.default_rng(2)
    detector = Feedback()
    before = detector.open(opening())
    windows(detector, before, rated(rng, 1_100, 0.1))
    state = detector.open(opening(predecessor=before))
    honest = rated(rng, 1_000, 0.1)
    poison = [rating("down", user=f"x-{n}", client="stranger", at=one.at) for n, one in enumerate(honest)]
    both = [item for pair in zip(honest, poison, strict=True) for item in pair]
    assert alarms(windows(detector, state, both)) == []


def test_a_smaller_window_in_the_middle_of_a_larger_one_hears_everybody_at_once():
    state, smaller = (Feedback().open(Opening(drift=DriftSpec(window=size))) for size in (1_000, 100))
    vote = rating(user=None, client="app")
    assert all(counts(state["voters"], vote) for _ in range(500))
    evidence.follow(state, smaller)
    assert all(counts(state["voters"], vote) for _ in range(500))


def test_what_keys_gave_is_handed_on():
    voters = opened(opening())
    for n in range(200):
        counts(voters, rating(user=f"u-{n}", client="app" if n % 4 else "other"))
    after = opened(opening(predecessor={"voters": voters}))
    assert sorted(after["keys"].values()) == [50, 150]


def test_ratings_that_come_late_give_nobody_a_second_vote():
    voters = opened(opening())
    days = [START + timedelta(days=n % 2) for n in range(1, 7)]
    assert sum(counts(voters, rating(user="u-1", client="app", at=day)) for day in days) == 1


def test_a_key_that_took_the_place_of_another_is_heard_day_by_day():
    rng = np.random.default_rng(3)
    detector = Feedback()
    before = detector.open(opening())
    windows(detector, before, rated(rng, 1_100, 0.1))
    for rate in (0.1, 0.5):
        state = detector.open(opening(predecessor=before))
        items = [one.model_copy(update={"client": "renamed"}) for one in rated(rng, 1_500, rate)]
        assert bool(alarms(windows(detector, state, items))) is (rate == 0.5)


def test_a_key_that_floods_a_quiet_hour_stays_a_stranger():
    voters = opened(opening())
    for n in range(200):
        counts(voters, rating(user=f"u-{n}", client="app"))
    after = opened(opening(predecessor={"voters": voters}))
    flood = [rating(user=f"x-{n}", client="stranger", at=START + timedelta(seconds=n)) for n in range(2_000)]
    assert sum(counts(after, one) for one in flood) == 5
