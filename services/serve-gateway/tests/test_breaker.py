from __future__ import annotations

from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_testing.clock import Clock


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(failures=3, seconds=5.0, now=clock)
    assert [breaker.fail() for _ in range(3)] == [False, False, True]
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = Breaker(failures=2, seconds=5.0, now=Clock())
    for _ in range(3):
        assert not breaker.fail()
        assert not breaker.succeed()
    assert breaker.allows()


def test_after_its_time_one_request_at_a_time_decides():
    clock = Clock()
    breaker = broken(clock)
    assert not breaker.allows()
    clock.now = 5.0
    assert breaker.allows()
    breaker.begin()
    assert not breaker.allows(), "the trial is under way"
    assert not breaker.fail(), "it was open before"
    clock.now = 9.0
    assert not breaker.allows()
    clock.now = 10.0
    breaker.begin()
    breaker.give_up()
    assert breaker.allows(), "nobody knows what became of the trial"
    breaker.begin()
    assert breaker.succeed()
    assert breaker.allows()
    assert not breaker.is_open


def test_a_health_check_lets_all_through_and_the_next_failure_opens_it_again():
    breaker = broken(Clock())
    assert breaker.pass_check()
    breaker.begin()
    assert breaker.allows()
    assert breaker.fail()
    assert breaker.pass_check()
    breaker.succeed()
    assert not breaker.fail()


def test_a_health_check_forgives_nothing_while_it_is_closed():
    breaker = Breaker(failures=2, seconds=5.0, now=Clock())
    breaker.fail()
    assert not breaker.pass_check()
    assert breaker.fail()
