"""What a margin may have lost already: folded from promotions, in any order and however often they come."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.scorecard import Gain
from tunewheel_registry.budget import BEST_Z, GAINED, Account, Z
from tunewheel_registry.desired import desired_state
from tunewheel_registry.state import State

from .conftest import Log

GAINS = st.builds(
    Gain, difference=st.floats(-0.3, 0.3), error=st.floats(0, 0.2), of=st.sampled_from(("trial", "holdout"))
)


def gain(difference: float, error: float = 0.0) -> Gain:
    return Gain(difference=difference, error=error, of="holdout")


def test_losses_add_up_and_errors_add_up_as_squares():
    account = Account().after(gain(-0.02, 0.03)).after(gain(-0.03, 0.04))
    assert account.spent == pytest.approx(0.05 + Z * 0.05)


def test_what_is_shown_to_be_better_is_the_best_and_has_spent_nothing():
    lost, gained = Account().after(gain(-0.05)), 0.05 / GAINED
    assert lost.after(gain(gained + 0.01)) == Account()
    assert lost.after(gain(gained - 0.02)).spent == pytest.approx(0.02 * GAINED)
    # it may still be worse than the best
    assert lost.after(gain(gained + 0.04, 0.04 * GAINED / BEST_Z + 0.001)).variance > 0


@given(st.lists(GAINS, max_size=10))
def test_an_account_never_owes_less_than_its_losses_since_the_best(gains: list[Gain]):
    account, best = Account(), 0
    for at, one in enumerate(gains):
        account = account.after(one)
        best = at + 1 if account == Account() else best
    since = gains[best:]
    counted = sum(min(one.difference, one.difference * GAINED) for one in since)
    owed = Z * sqrt(sum(one.error**2 for one in since)) - counted
    assert account.spent == pytest.approx(min(1.0, max(0.0, owed)), abs=1e-5)


def test_a_promotion_of_which_nothing_was_measured_is_counted_and_adds_nothing():
    account = Account().after(gain(-0.05)).after(None)
    assert (account.spent, account.unmeasured) == (0.05, 1)
    assert account.after(gain(0.2)).unmeasured == 0


def measured(desk: Any, verdict: Any, difference: float, error: float = 0.01) -> Any:
    """Return a verdict whose check has a gain."""
    checks = tuple(one.model_copy(update={"gain": gain(difference, error)}) for one in verdict.data.checks)
    return new_event(verdict.data.model_copy(update={"checks": checks}), source="/test")


def three_champions(desk: Any) -> Log:
    """Return a log in which the second champion lost .03, and the third .02 more."""
    log = Log(desk, desk.trained(1), desk.passed(1))
    for n, difference in ((2, -0.03), (3, -0.02)):
        log.play(measured(desk, desk.passed(n), difference), desk.judged(n, "canary", "passed"))
    assert log.stages() == {1: "retired", 2: "retired", 3: "production"}
    return log


def spent(state: State, desk: Any) -> float:
    desired = desired_state(state, desk.spec())
    assert desired is not None
    return desired.spent


def test_the_desired_state_says_what_the_champions_may_have_lost(desk: Any):
    log = three_champions(desk)
    assert spent(log.state, desk) == pytest.approx(0.05 + Z * sqrt(2) * 0.01, abs=1e-6)
    promoted = [event for event in log.events if getattr(event, "to_stage", "") == "production"]
    assert [event.gain and event.gain.difference for event in promoted] == [None, -0.03, -0.02]


def test_a_champion_that_comes_back_has_the_account_that_it_had(desk: Any):
    log = three_champions(desk)
    log.play(desk.commanded(3, "rollback"))
    assert spent(log.state, desk) == pytest.approx(0.03 + Z * 0.01)
    log.play(desk.commanded(1, "promote"))
    assert spent(log.state, desk) == 0
    log.play(desk.commanded(1, "rollback", request="two"), desk.commanded(2, "retire"))
    assert log.state.champion is None
    assert spent(log.state, desk) == 0


def test_a_person_promotes_without_evidence_and_the_account_says_so(desk: Any):
    log = three_champions(desk)
    before = spent(log.state, desk)
    log.play(desk.trained(4), desk.commanded(4, "promote", force=True))
    assert log.state.champion is not None
    assert (spent(log.state, desk), log.state.champion.account.unmeasured) == (before, 1)


def test_what_a_verdict_measured_counts_for_a_model_that_a_person_promotes(desk: Any):
    log = three_champions(desk)
    log.play(measured(desk, desk.passed(4), -0.04), desk.commanded(4, "promote"))
    assert spent(log.state, desk) == pytest.approx(0.09 + Z * sqrt(3) * 0.01, abs=1e-6)


def test_what_was_measured_against_another_champion_counts_for_nothing(desk: Any):
    log = three_champions(desk)
    log.play(measured(desk, desk.passed(4), 0.5), desk.commanded(2, "promote"), desk.commanded(4, "promote"))
    assert log.state.champion is not None
    assert log.state.champion.account.unmeasured == 1


def test_a_trial_that_compared_answers_outweighs_the_held_out_rows(desk: Any):
    log = Log(desk, desk.trained(1), desk.passed(1), measured(desk, desk.passed(2), -0.03))
    judged = desk.judged(2, "canary", "passed")
    bound = {
        "figure": "answers", "candidate": 0.04, "champion": 0.06, "low": -0.1, "high": 0.05, "margin": 0.1,
        "pairs": 40,
    }  # fmt: skip
    data = type(judged.data).model_validate(judged.data.model_dump() | {"bounds": [bound]})
    log.play(new_event(data, source="/test"))
    promoted = log.events[-2]
    told = (promoted.gain.difference, promoted.gain.error, promoted.gain.of)
    assert told == (pytest.approx(0.02), pytest.approx(0.02), "trial")
    assert spent(log.state, desk) == pytest.approx(Z * 0.02 - GAINED * 0.02)
