"""Whom a pass beat counts: the champion may be another by the time that it comes, or that a trial ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalPassed, EvalRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_registry.decision import decide
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.waiting import obstacle

from .conftest import Log as Played


class Log(Played):
    def asked(self) -> list[tuple[str, str | None]]:
        """(run, champion) of every other evaluation that was asked for."""
        return [(e.run_id, e.against) for e in self.events if isinstance(e, EvalRequested)]


def queued(desk: Any) -> Log:
    """Two runs of before there was a champion: both are compared with the base alone, and the first is in
    production when the second one's verdict comes."""
    return Log(desk, desk.trained(1), desk.trained(2), desk.passed(1, against=0), desk.passed(2, against=0))


@pytest.mark.parametrize("canary", [True, False])
def test_of_two_queued_runs_the_second_waits_for_a_verdict_against_the_first(make_desk: Any, canary: bool):
    desk = make_desk(canary=canary)
    log = queued(desk)
    assert log.stages() == {1: "production", 2: "evaluated"}
    assert log.asked() == [("run-2", desk.model_id(1))]
    (asked,) = (e for e in log.events if isinstance(e, EvalRequested))
    assert asked.request == desk.passed(2, against=0).id
    assert "never compared with desk-000000000001" in log.state.models[desk.model_id(2)].history[-1].reason
    log.play(desk.passed(2, against=1))
    assert log.stages() == ({1: "production", 2: "canary"} if canary else {1: "retired", 2: "production"})
    assert len(log.asked()) == 1


def test_the_second_run_that_does_not_beat_the_first_is_rejected(desk: Any):
    log = queued(desk)
    log.play(desk.failed(2, against=1))
    assert log.stages() == {1: "production", 2: "rejected"}


def test_a_verdict_that_comes_again_asks_for_nothing_again(desk: Any):
    log = queued(desk)
    assert log.play(desk.passed(2, against=0)) == []
    assert len(log.asked()) == 1


def test_a_request_that_a_crash_kept_off_the_log_is_made_when_the_verdict_comes_again(desk: Any):
    log = Log(desk, desk.trained(1), desk.trained(2), desk.passed(1, against=0))
    *written, lost = decide(log.state, desk.passed(2, against=0), desk.rollout)
    for event in written:
        log.state = apply(log.state, event)
    (again,) = decide(log.state, desk.passed(2, against=0), desk.rollout)
    assert isinstance(again, EvalRequested)
    assert again.event_id() == lost.event_id()


def on_trial_while_the_champion_changes(desk: Any) -> Log:
    """The second version is in canary, better than the first, which a person replaces by one of before."""
    log = Log(desk, desk.trained(1), desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"))
    log.play(desk.passed(3))
    assert log.stages() == {1: "retired", 2: "production", 3: "canary"}
    log.play(desk.commanded(1, "promote"))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
    return log


def test_a_trial_that_was_passed_while_the_champion_changed_waits_for_another_verdict(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.judged(3, "canary", "passed"))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
    assert log.asked() == [("run-3", desk.model_id(1))]
    assert log.play(desk.judged(3, "canary", "passed")) == []
    assert log.play(desk.judged(3, "canary", "failed")) == []  # the first judgement of a stage counts
    log.play(desk.passed(3, against=1))
    assert log.stages() == {1: "retired", 2: "retired", 3: "production"}


def test_a_trial_that_waits_for_another_verdict_ends_when_that_fails(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.judged(3, "canary", "passed"), desk.failed(3, against=1))
    assert log.stages() == {1: "production", 2: "retired", 3: "rolled_back"}


@pytest.mark.parametrize("judged", [True, False], ids=["too_few_rows", "no_row_left"])
def test_a_trial_that_waits_for_another_verdict_ends_with_a_reason_when_that_is_undecided(
    desk: Any, judged: bool
):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.judged(3, "canary", "passed"))
    (asked,) = (e for e in log.events if isinstance(e, EvalRequested))
    # against yesterday's champion, and not what was asked for
    assert log.play(desk.undecided(3, against=2, judged=judged)) == []
    undecided = desk.undecided(3, against=1, judged=judged, cause=new_event(asked, source="/test"))
    (ended,) = log.play(undecided)
    assert (ended.to_stage, ended.decided_by) == (Stage.RETIRED, "criteria")
    assert "undecided whether it is better than desk-000000000001, which is in production now" in ended.reason
    assert "too few rows" in ended.reason
    assert log.play(undecided) == []
    assert log.play(desk.judged(3, "canary", "failed")) == []
    log.play(desk.commanded(3, "promote"))
    assert log.stages()[3] == "production"


def test_an_undecided_verdict_ends_no_trial_that_goes_on(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    assert log.play(desk.undecided(3, against=1)) == []


def test_a_model_that_passed_and_is_undecided_against_the_new_champion_has_a_trial_that_must_show_more(
    desk: Any,
):
    log = queued(desk)
    undecided = desk.undecided(2, against=1)
    doubted, trial = log.play(undecided)
    assert (doubted.from_stage, doubted.stage, doubted.to_show) == (
        Stage.EVALUATED, Stage.UNDECIDED, -0.05,
    )  # fmt: skip
    assert (trial.to_stage, trial.to_show) == (Stage.SHADOW, -0.05)
    assert log.play(undecided) == []
    assert log.stages() == {1: "production", 2: "shadow"}
    assert len(log.asked()) == 1, "nothing new is known: nobody asks for the same verdict again"


def test_a_model_that_waits_undecided_retires_once_a_newer_version_is_in_traffic(desk: Any):
    log = queued(desk)
    log.play(desk.undecided(2, against=1, judged=False, cause=new_event(log.events[-1], source="/test")))
    assert log.stages()[2] == "undecided"
    log.play(desk.trained(3), desk.passed(3, against=1))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
    assert "superseded" in log.state.models[desk.model_id(2)].history[-1].reason


def test_a_model_that_was_undecided_goes_on_where_the_champion_that_it_has_beaten_is_back(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.trained(4), desk.passed(4, against=2), desk.undecided(4, against=1))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary", 4: "undecided"}
    log.play(desk.commanded(2, "promote", request="back"), desk.judged(3, "canary", "failed"))
    assert log.stages()[4] == "canary"


def test_beside_a_champion_that_it_has_beaten_an_undecided_model_need_not_show_more(make_desk: Any):
    desk = make_desk(shadow=True, canary=False)
    log = Log(desk, desk.trained(1), desk.passed(1), desk.judged(1, "shadow", "passed"))
    log.play(desk.trained(2), desk.passed(2), desk.judged(2, "shadow", "passed"))
    log.play(desk.trained(3), desk.trained(4), desk.passed(3, against=2), desk.passed(4, against=2))
    log.play(desk.commanded(1, "promote"), desk.undecided(4, against=1))
    log.play(desk.commanded(2, "promote", request="back"), desk.judged(3, "shadow", "failed"))
    assert log.stages()[4] == "shadow"
    assert not log.state.models[desk.model_id(4)].is_doubted
    log.play(desk.judged(4, "shadow", "passed", compared=False))
    assert log.stages()[4] == "production"


def test_the_other_verdict_may_come_before_the_trial_ends(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.passed(3, against=1))
    assert log.stages()[3] == "canary"
    log.play(desk.judged(3, "canary", "passed"))
    assert log.stages()[3] == "production"
    assert log.asked() == []


def test_from_shadow_too_nobody_goes_up_who_was_not_compared_with_the_champion(make_desk: Any):
    desk = make_desk(shadow=True, canary=True)
    log = Log(desk, desk.passed(1), desk.judged(1, "shadow", "passed"), desk.judged(1, "canary", "passed"))
    log.play(desk.passed(2), desk.judged(2, "shadow", "passed"))
    log.play(desk.judged(2, "canary", "passed"), desk.passed(3), desk.commanded(1, "promote"))
    log.play(desk.judged(3, "shadow", "passed"))
    assert log.stages() == {1: "production", 2: "retired", 3: "shadow"}
    log.play(desk.passed(3, against=1))
    assert log.stages()[3] == "canary"


def test_a_verdict_counts_again_when_its_champion_comes_back(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"))
    log.play(desk.trained(3), desk.passed(3, against=1))
    assert (log.stages()[3], log.asked()) == ("evaluated", [("run-3", desk.model_id(2))])
    log.play(desk.commanded(2, "rollback"))
    assert log.stages() == {1: "production", 2: "rolled_back", 3: "canary"}
    log.play(desk.judged(3, "canary", "passed"))
    assert log.stages()[3] == "production"


def test_without_a_champion_a_pass_counts_whomever_it_was_compared_with(desk: Any):
    """The bare base answers, which every verdict compares with."""
    log = Log(desk, desk.passed(1), desk.commanded(1, "rollback"), desk.passed(2, against=1))
    assert log.stages() == {1: "rolled_back", 2: "production"}
    log = Log(desk, desk.passed(1), desk.passed(2), desk.commanded(1, "rollback"))
    log.play(desk.judged(2, "canary", "passed"))
    assert log.stages() == {1: "rolled_back", 2: "production"}


def test_a_pass_of_before_champions_were_named_did_not_beat_the_present_one(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2, against=0))
    assert (log.stages()[2], log.asked()) == ("evaluated", [("run-2", desk.model_id(1))])


def test_a_waiting_model_is_retired_once_a_newer_version_is_in_traffic(desk: Any):
    log = queued(desk)
    log.play(desk.passed(3, against=1))
    assert log.stages() == {1: "production", 2: "retired", 3: "canary"}
    log.play(desk.passed(2, against=1))
    assert log.stages()[2] == "retired"


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_slow_trial_keeps_its_place_and_the_newest_of_those_who_wait_goes_next(make_desk: Any, stage: str):
    desk = make_desk(shadow=stage == "shadow")
    log = Log(desk, desk.passed(1), desk.commanded(1, "promote"), desk.passed(2))
    for newer in (3, 4):
        log.play(desk.passed(newer, against=1))
        reason = log.state.models[desk.model_id(newer)].history[-1].reason
        assert f"waits: {desk.model_id(2)} is in {stage}, and keeps its place until it is judged" in reason
    assert log.stages() == {1: "production", 2: stage, 3: "evaluated", 4: "evaluated"}
    assert log.asked() == [], "they beat the champion: what they wait for is their turn"
    assert log.play(desk.passed(4, against=1)) == []
    log.play(desk.judged(2, stage, "failed"))
    assert log.stages() == {1: "production", 2: "rolled_back", 3: "retired", 4: stage}
    superseded = log.state.models[desk.model_id(3)].history[-1].reason
    assert superseded == f"superseded: the newer version {desk.model_id(4)} is in {stage}"


def test_a_model_that_waits_for_a_trial_is_judged_against_the_winner_of_that_trial(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.passed(3, against=1), desk.passed(4, against=1))
    log.play(desk.judged(2, "canary", "passed"))
    assert log.stages() == {1: "retired", 2: "production", 3: "evaluated", 4: "evaluated"}
    assert log.asked() == [(f"run-{n}", desk.model_id(2)) for n in (3, 4)]
    log.play(desk.passed(3, against=2))
    assert log.stages()[3] == "canary", "a newer one that may yet lose keeps nobody"
    log.play(desk.passed(4, against=2))
    assert (log.stages()[3], log.stages()[4]) == ("canary", "evaluated")


def test_a_model_that_passed_its_trial_and_waits_for_a_verdict_makes_room_for_a_newer_version(desk: Any):
    log = on_trial_while_the_champion_changes(desk)
    log.play(desk.judged(3, "canary", "passed"), desk.passed(4, against=1))
    assert log.stages() == {1: "production", 2: "retired", 3: "retired", 4: "canary"}


@pytest.mark.parametrize("stage", ["shadow", "canary"])
@pytest.mark.parametrize(
    ("verdict", "ends"), [("passed", "production"), ("failed", "rolled_back"), ("undecided", "retired")]
)
def test_an_undecided_newer_version_lets_the_verdict_on_a_model_that_held_up_come_first(
    make_desk: Any, stage: str, verdict: str, ends: str
):
    desk = make_desk(shadow=stage == "shadow", canary=stage == "canary")
    log = Log(desk, desk.passed(1))
    if stage == "shadow":  # beside the base
        log.play(desk.judged(1, stage, "passed"))
    log.play(desk.passed(2), desk.judged(2, stage, "passed"), desk.passed(3), desk.commanded(1, "promote"))
    log.play(desk.judged(3, stage, "passed"))
    assert log.stages() == {1: "production", 2: "retired", 3: stage}
    log.play(desk.undecided(4, against=1))
    assert log.stages()[3] == stage, "it held up, and waits for another verdict"
    assert log.stages()[4] == "undecided"
    assert desk.model_id(3) in log.state.models[desk.model_id(4)].history[-1].reason
    asked = new_event(next(e for e in log.events if isinstance(e, EvalRequested)), source="/test")
    more = {"cause": asked} if verdict == "undecided" else {}
    log.play(getattr(desk, verdict)(3, against=1, **more))
    assert log.stages()[3] == ends
    assert log.stages()[4] == ("undecided" if ends == "production" else "shadow")


def test_a_crash_between_the_end_of_a_trial_and_the_next_one_s_begin_is_mended(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.passed(3, against=1), desk.passed(4, against=1))
    judged = desk.judged(2, "canary", "failed")
    whole = decide(log.state, judged, desk.rollout)
    for done in range(1, len(whole)):
        state = log.state
        for event in whole[:done]:
            state = apply(state, event)
        again = decide(state, judged, desk.rollout)
        assert [event.event_id() for event in again] == [event.event_id() for event in whole[done:]]


def test_a_candidate_on_another_base_ends_with_the_reason_and_is_promoted_by_a_person(desk: Any):
    other = desk.adapter(1).base.model_copy(update={"name": "org/Other-Base"})
    log = Log(desk, desk.passed(1), desk.passed(2, base=other))
    assert log.stages() == {1: "production", 2: "retired"}
    reason = log.state.models[desk.model_id(2)].history[-1].reason
    assert "org/Other-Base" in reason
    assert "a trial would get no requests" in reason
    assert log.play(desk.passed(2, base=other)) == []
    log.play(desk.commanded(2, "promote"))
    assert log.stages() == {1: "retired", 2: "production"}
    desired = desired_state(log.state, desk.spec())
    assert desired is not None
    assert desired.base == other


def test_a_candidate_on_another_revision_of_the_base_ends_before_its_trial(make_desk: Any):
    desk = make_desk(canary=True)
    moved = desk.adapter(1).base.model_copy(update={"revision": "sha256:" + "9" * 64})
    log = Log(desk, desk.passed(1), desk.passed(2, base=moved))
    assert log.stages() == {1: "production", 2: "retired"}
    step = log.state.models[desk.model_id(2)].history[-1]
    assert f"revision {moved.revision} of the base org/Tiny-Base" in step.reason
    assert f"the champion's revision, {desk.adapter(1).base.revision}" in step.reason
    assert step.decided_by == "rollout"
    without = make_desk(canary=False)  # who needs no trial goes on: its gateway knows the engine
    assert Log(without, without.passed(1), without.passed(2, base=moved)).stages()[2] == "production"


@pytest.mark.parametrize("ended", [False, True], ids=["on_trial", "in_production"])
def test_a_failure_against_a_former_champion_moves_no_model(desk: Any, ended: bool):
    """Eval pinned the champion when it began; a person took that one out before it answered."""
    log = Log(desk, desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"))
    log.play(desk.trained(3), desk.passed(3, against=1), desk.commanded(2, "rollback"))
    assert (log.stages(), log.asked()) == (
        {1: "production", 2: "rolled_back", 3: "canary"}, [("run-3", desk.model_id(2))]
    )  # fmt: skip
    log.play(*[desk.judged(3, "canary", "passed")] * ended)
    before = log.stages()
    assert log.play(desk.failed(3, against=2)) == []
    assert log.stages() == before
    log.play(desk.failed(3, against=1, field="review"))
    assert log.stages()[3] == "rolled_back"


def test_a_champion_that_is_judged_again_and_cannot_be_measured_goes_on(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"))
    failed = desk.failed(2, against=0, field="(evaluation)")
    unmeasured = new_event(failed.data.model_copy(update={"checks": ()}), source="/test")
    assert log.play(unmeasured) == []
    assert log.play(failed) == []  # against the base, but it took over from the first version
    log.play(desk.failed(2, against=1))
    assert log.stages() == {1: "production", 2: "rolled_back"}


def test_a_champion_of_before_that_does_not_beat_the_present_one_is_still_fallen_back_to(desk: Any):
    log = Log(desk, desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"))
    assert log.play(desk.failed(1, against=2)) == []
    log.play(desk.failed(2, field="review"))
    assert log.stages() == {1: "production", 2: "rolled_back"}


ACTIONS = ("promote", "rollback", "pin", "unpin", "retire", "reject")


class Wheel(Log):
    """A loop of queues in any interleaving. Eval pins the champion that it sees when it begins, and answers
    some time later; ``beaten`` is what verdicts said, kept apart from what the registry thinks."""

    def __init__(self, desk: Any) -> None:
        super().__init__(desk)
        self.begun: list[Envelope[Any]] = []
        self.told: list[Envelope[Any]] = []
        self.beaten: set[tuple[str, str]] = set()
        self.runs = 0

    def train(self, _: int, __: bool) -> None:
        self.runs += self.runs < 6
        self.tell(self.desk.trained(self.runs))

    def begin(self, n: int, better: bool) -> None:
        """Eval takes up one of the runs, or what was asked for."""
        asked = [int(run.removeprefix("run-")) for run, _ in self.asked()]
        runs = [*range(1, self.runs + 1), *asked]
        if runs:
            run, champion = runs[-1 - n % len(runs)], self.champion()
            judge = self.desk.passed if better else self.desk.failed
            self.begun.append(judge(run, against=champion if champion != run else 0))

    def answer(self, n: int, _: bool) -> None:
        if self.begun:
            self.tell(self.begun.pop(n % len(self.begun)))

    def doubt(self, n: int, judged: bool) -> None:
        """Eval cannot tell."""
        if self.runs:
            self.tell(self.desk.undecided(1 + n % self.runs, against=self.champion(), judged=judged))

    def judge(self, n: int, better: bool) -> None:
        for model in self.state.candidates:
            if better and model.is_doubted and self.state.champion:
                self.beaten.add((model.model_id, str(model.against)))
            number, verdict = self.number(model.model_id), "passed" if better else "failed"
            self.tell(self.desk.judged(number, model.stage.value, verdict, generation=n))

    def command(self, n: int, force: bool) -> None:
        if self.runs:
            request = str(len(self.told))
            action = ACTIONS[n % len(ACTIONS)]
            self.tell(
                self.desk.commanded(1 + n // len(ACTIONS) % self.runs, action, request=request, force=force)
            )

    def repeat(self, n: int, _: bool) -> None:
        if self.told:
            self.tell(self.told[n % len(self.told)])

    def champion(self) -> int:
        return self.number(self.state.champion.model_id) if self.state.champion else 0

    def number(self, model_id: str) -> int:
        return int(model_id.rpartition("-")[2], 16)

    def tell(self, trigger: Envelope[Any]) -> None:
        self.told.append(trigger)
        data = trigger.data
        if isinstance(data, EvalPassed):
            champions = (c.model_id for c in data.contestants if c.role is Role.CHAMPION)
            self.beaten |= {(data.adapter.model_id, champion) for champion in champions}
        if isinstance(data, EvalPassed) and self.is_rejected(data.adapter.model_id):
            return  # a dead letter
        if isinstance(data, RolloutJudged) and not self.state.models[data.model_id].has_been(
            Stage(data.stage)
        ):
            return
        for event in self.play(trigger):
            self.check(event)
        self.check_state()

    def is_rejected(self, model_id: str) -> bool:
        return model_id in self.state.models and self.state.models[model_id].stage is Stage.REJECTED

    def check(self, event: Any) -> None:
        """By the loop nobody reaches production who did not beat whom it replaces. A champion of before
        comes back without."""
        if isinstance(event, ModelPromoted) and event.to_stage is Stage.PRODUCTION:
            by_loop = event.decided_by != "command" and event.from_stage is not Stage.RETIRED
            if by_loop and event.replaces is not None:
                assert (event.model_id, event.replaces) in self.beaten

    def check_state(self) -> None:
        in_production = [m for m in self.state.models.values() if m.stage is Stage.PRODUCTION]
        assert len(in_production) <= 1
        assert len(self.state.candidates) <= 1
        champion, requests = self.state.champion, self.asked()
        for model in self.state.models.values():
            if not model.waits or self.state.pinned is not None:
                continue
            ends_here = model.stage is Stage.UNDECIDED and model.to_show is None
            assert ends_here or obstacle(self.state, model) is not None  # else it had gone on
            if champion is None or champion.model_id in model.compared:
                assert ends_here or self.state.candidates
            else:
                assert (model.registration.run_id, champion.model_id) in requests


MOVES = ("train", "begin", "answer", "doubt", "judge", "command", "repeat")


@given(
    moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 40), st.booleans()), max_size=40),
    shadow=st.booleans(),
    canary=st.booleans(),
)
def test_in_no_interleaving_the_loop_promotes_who_did_not_beat_the_champion(
    make_desk: Any, moves: list[tuple[str, int, bool]], shadow: bool, canary: bool
):
    wheel = Wheel(make_desk(shadow=shadow, canary=canary))
    for move, number, flag in moves:
        getattr(wheel, move)(number, flag)
