"""Trials of a candidate, from scored requests to the verdict."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.formats.rollout_spec import CanaryPolicy, RolloutSpec, ShadowPolicy
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.detectors.votes import is_first
from tunewheel_monitor.rollout import trials as rollout
from tunewheel_monitor.rollout.counting import WAITING

AT = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPEC = RolloutSpec()


def step(to: str, *, source: str = "evaluated", at: datetime = AT, model: str = "new", **more: Any) -> Any:
    values = {"generation": 4} | more
    data = ModelPromoted(
        project="p", model_id=model, from_stage=Stage(source), to_stage=Stage(to), cause="c", reason="r",
        **values,
    )  # fmt: skip
    return new_event(data, source="/test", time=at)


class Story:
    """One project's traffic. After each item that is asked the state goes through JSON, as a checkpoint."""

    def __init__(self, stage: str = "canary", spec: RolloutSpec = SPEC, seed: int = 1) -> None:
        self.trials = rollout.new()
        self.stage, self.spec, self.number = stage, spec, 0
        self.random = np.random.default_rng(seed)
        if stage:
            self.follow(step(stage))

    def follow(self, event: Any) -> None:
        rollout.follow(self.trials, event)

    def count(self, model: str, **changes: Any) -> None:
        """Let ``model`` answer one request, a second after the last."""
        self.number += 1
        is_new = model == "new"
        values: dict[str, Any] = {
            "project": "p", "completion_id": f"c{self.number}", "scored": f"e{self.number}",
            "model_id": model, "role": RouteRole(self.stage) if is_new else RouteRole.PRODUCTION,
            "at": AT + timedelta(seconds=self.number), "format_valid": True, "latency_seconds": 1.0,
        }  # fmt: skip
        if changes.get("outcome") == "failed":
            values |= {"format_valid": None}
        item = InferenceScored(**(values | changes))
        rollout.count(self.trials, item, self.spec)

    def ask(self, model: str, **changes: Any) -> None:
        self.count(model, **changes)
        self.trials = json.loads(json.dumps(self.trials, sort_keys=True))

    def judged(self, after: timedelta = timedelta(0)) -> RolloutJudged | None:
        found = rollout.judge(self.trials, "p", self.spec, AT + after)
        assert len(found) <= 1
        return found[0].data if found else None

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def both(self, most: int, new: Any = None, old: Any = None) -> RolloutJudged | None:
        """Let canary and champion answer in turn, up to ``most`` requests each, until there is a verdict."""
        for _ in range(most):
            self.ask("old", **(old() if old else {}))
            self.ask("new", **(new() if new else {}))
            if (found := self.judged()) is not None:
                return found
        return None

    def pairs(self, most: int, new: Any = None, old: Any = None) -> RolloutJudged | None:
        """Let the champion answer and the shadow answer the same."""
        for _ in range(most):
            self.ask("old", **(old() if old else {}))
            self.ask("new", shadow_of=f"c{self.number}", **(new() if new else {}))
            if (found := self.judged()) is not None:
                return found
        return None


def failed(fault: str) -> dict[str, Any]:
    return {"outcome": "failed", "fault": fault}


def test_equals_pass_with_the_figures_that_decided():
    found = Story().both(60)
    assert found is not None
    assert (found.verdict, found.decided_by, found.generation) == ("passed", "bounds", 4)
    assert 40 <= found.requests <= 55
    assert found.candidate == {"requests": found.requests, "error_rate": 0, "invalid_rate": 0, "slow_rate": 0}
    bounds = {bound.figure: bound for bound in found.bounds}
    assert bounds.keys() == {"errors", "incidents", "invalid", "latency"}
    assert all(bound.low < 0 < bound.high < bound.margin == 0.1 for bound in bounds.values())
    assert found.alpha == 0.01


def test_how_the_log_is_cut_makes_no_difference():
    looked, once = Story(), Story()
    first = looked.both(100)
    for _ in range(100):
        once.ask("old")
        once.ask("new")
    assert once.judged() == first
    assert once.judged() is None
    assert once.trials["open"] == {}


@pytest.mark.parametrize(("stage", "play"), [("canary", Story.both), ("shadow", Story.pairs)])
def test_a_candidate_with_worse_outputs_fails(stage: str, play: Any):
    story = Story(stage)
    found = play(story, 400, new=lambda: {"format_valid": not story.chance(0.3)})
    assert (found.verdict, found.decided_by) == ("failed", "bounds")
    assert "invalid outputs" in found.reasons[0]
    assert found.bounds[2].low > 0


@pytest.mark.parametrize(("stage", "play"), [("canary", Story.both), ("shadow", Story.pairs)])
def test_a_candidate_that_takes_twice_as_long_fails(stage: str, play: Any):
    story = Story(stage)
    time = lambda: float(story.random.lognormal(0, 0.5))  # noqa: E731
    found = play(
        story, 300, new=lambda: {"latency_seconds": 2 * time()}, old=lambda: {"latency_seconds": time()}
    )
    assert found.verdict == "failed"
    assert "slow answers" in found.reasons[0]


def test_a_candidate_whose_first_token_is_late_fails():
    found = Story().both(
        100, new=lambda: {"first_token_seconds": 0.9}, old=lambda: {"first_token_seconds": 0.1}
    )
    assert found is not None
    assert (found.verdict, found.candidate["late_rate"], found.champion["late_rate"]) == ("failed", 1, 0)


def test_an_hour_that_is_slow_for_both_shows_in_neither():
    story = Story()
    slow = lambda: {"latency_seconds": 1.0 + (story.number // 20) % 2 * 5}  # noqa: E731
    found = story.both(400, new=slow, old=slow)
    assert found is not None
    assert found.verdict == "passed"


def test_a_candidate_that_cannot_be_served_fails_at_once():
    found = Story().both(40, new=lambda: failed("model"))
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "bounds")
    assert found.requests < 20  # no floor for harm
    assert found.candidate["error_rate"] == 1


def test_what_the_engine_fails_for_both_is_nobodys():
    story = Story()
    outage = lambda: failed("engine") if story.number // 30 % 2 else {}  # noqa: E731
    found = story.both(200, new=outage, old=outage)
    assert found is not None
    assert found.verdict == "passed"
    assert found.candidate["engine_incidents"] > 0


@pytest.mark.parametrize("stage", ["canary", "shadow"])
def test_an_outage_in_shadow_or_canary_is_not_the_candidates(stage: str):
    """What the champion fails is not copied, so in shadow the candidate alone has requests that fail."""
    story = Story(stage)
    for number in range(600):
        down = number % 60 < 15
        story.ask("old", **(failed("engine") if down else {}))
        if stage == "canary" or number % 60 > 13:  # one copy was under way when it began
            story.ask("new", shadow_of=f"c{story.number}", **(failed("engine") if down else {}))
        if (found := story.judged()) is not None:
            break
    assert found is not None
    assert found.verdict == "passed"


def test_what_the_engine_fails_for_the_candidate_alone_is():
    found = Story().both(60, new=lambda: failed("engine"))
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "incidents")


def test_clients_count_for_nobody():
    story = Story()
    for number in range(120):
        story.ask("old")
        story.ask(
            "new", **(failed("client") if number % 2 else {"outcome": "cancelled", "format_valid": False})
        )
        story.ask("new", pinned=True, format_valid=False)
        story.ask("new", at=AT - DAY, format_valid=False)
        story.ask("other", role="canary", format_valid=False)
    assert story.trials["open"]["new"]["candidate"]["requests"] == 0
    assert story.judged() is None


def test_answers_to_a_clients_own_prompt_say_nothing_of_the_form():
    own = lambda: {"overrides": ("system_prompt",), "format_valid": False}  # noqa: E731
    story = Story()
    for number in range(100):
        story.ask("old")
        story.ask("new", **(own() if number % 2 else {}))
        if (found := story.judged()) is not None:
            break
    assert found is not None
    assert (found.verdict, found.candidate["invalid_rate"]) == ("passed", 0)
    everybody = Story().both(80, new=own, old=own)
    assert everybody is not None
    assert everybody.verdict == "passed"  # the form cannot be judged, and is not waited for


def test_answers_that_nobody_judged_are_waited_for_to_the_deadline():
    story = Story()
    assert story.both(120, new=lambda: {"format_valid": None}) is None
    found = story.judged(7 * DAY)
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "deadline")
    assert "invalid outputs were not compared; at most 10.0% more is tolerated" in found.reasons


def test_a_candidate_that_withholds_every_answer_does_not_pass():
    story = Story()
    assert story.both(120, new=lambda: {"overrides": ("abstained",), "format_valid": None}) is None
    found = story.judged(7 * DAY)
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "deadline")


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_candidate_that_never_answers_is_gone_by_the_deadline(stage: str):
    policy = {"deadline_seconds": 60}
    story = Story(stage, RolloutSpec(shadow=ShadowPolicy(**policy), canary=CanaryPolicy(**policy)))
    for _ in range(30):
        story.ask("old")
    assert story.judged(timedelta(seconds=59)) is None
    found = story.judged(timedelta(seconds=60))
    assert found is not None
    assert (found.verdict, found.decided_by, found.requests) == ("failed", "deadline", 0)
    assert "the candidate saw 0 of at least 20 requests" in found.reasons
    assert found.event_id() == RolloutJudged(**dict(found) | {"decided_by": "bounds"}).event_id()
    assert story.judged(DAY) is None


def test_what_came_after_the_deadline_does_not_count():
    story = Story(spec=RolloutSpec(canary=CanaryPolicy(deadline_seconds=60)))
    found = story.both(100)
    assert found is not None
    assert (found.decided_by, found.requests) == ("deadline", 29)


def test_a_pass_keeps_the_limits_of_the_spec_besides():
    story = Story(spec=RolloutSpec(canary=CanaryPolicy(max_error_rate=0.01)))
    fails = lambda: failed("model") if story.number % 40 == 1 else {}  # noqa: E731
    assert story.both(200, new=fails) is None
    found = story.judged(8 * DAY)
    assert found is not None
    assert any("above the tolerated 1.0%" in reason for reason in found.reasons)


def test_more_thumbs_down_fail_a_candidate():
    story = Story()
    for _ in range(300):
        for model, share in (("old", 0.1), ("new", 0.6)):
            story.ask(model, of="rating", rating="down" if story.chance(share) else "up", format_valid=None)
        if (found := story.judged()) is not None:
            break
    assert found is not None
    assert found.verdict == "failed"
    assert "thumbs down" in found.reasons[0]


def test_one_user_is_not_many_raters():
    story = Story()
    for number in range(400):
        story.ask("old", of="rating", rating="up", format_valid=None, user=f"u{number}")
        spammer = number % 2
        user = "spammer" if spammer else f"v{number}"
        story.ask("new", of="rating", rating="down" if spammer else "up", format_valid=None, user=user)
    assert story.judged() is None


def test_users_who_stay_with_one_model_are_one_observation_each():
    """Every eighth user gets invalid answers only, of any model; 40 users send 2,000 requests."""

    def asked(one_per_user: bool, seed: int) -> str | None:
        story = Story(spec=RolloutSpec(canary=CanaryPolicy(one_per_user=one_per_user)))
        bad = np.random.default_rng(seed).random(40) < 0.125
        for number in range(500):
            user = number % 40
            story.count("new" if user % 4 == 0 else "old", user=f"u{user}", format_valid=not bad[user])
            if (found := story.judged()) is not None:
                return found.verdict
        return None

    assert {asked(True, seed) for seed in range(6)} == {None}
    assert "failed" in {asked(False, seed) for seed in range(6)}


def test_what_remembers_users_stays_small():
    seen: list[int] = []
    counted = sum(is_first(seen, f"u{number}") for number in range(1_000))
    assert 900 < counted <= 1_000
    assert not any(is_first(seen, f"u{number}") for number in range(1_000))
    assert is_first(seen, None)
    assert is_first(seen, None)
    assert len(seen) == 128


def test_a_shadow_that_answers_with_other_labels_fails():
    story = Story("shadow")
    found = story.pairs(
        100,
        new=lambda: {"label": "billing"},
        old=lambda: {"label": "billing" if story.chance(0.1) else "solar"},
    )
    assert found is not None
    assert found.verdict == "failed"
    assert found.candidate["other_label_rate"] > 0.5


def test_a_shadows_pairs_are_found_in_any_order_and_few_wait():
    story = Story("shadow")
    for number in range(3 * WAITING):
        story.ask("new", shadow_of=f"q{number}", completion_id=f"s{number}")
        if number % 3:
            story.ask("old", completion_id=f"q{number}")
    trial = story.trials["open"]["new"] if story.trials["open"] else None
    assert trial is not None
    assert trial["verdict"]["verdict"] == "passed"
    story = Story("shadow")
    for number in range(2 * WAITING):
        story.ask("old", at=AT + timedelta(seconds=number / 100))
    assert len(story.trials["open"]["new"]["waiting"]) == WAITING
    story.ask("old", completion_id="late", at=AT + timedelta(minutes=5))
    assert list(story.trials["open"]["new"]["waiting"]) == ["late"]


def test_a_canary_that_answers_everything_is_held_to_the_limits():
    spec = RolloutSpec(canary=CanaryPolicy(percent=100))

    def alone(share: float, outcome: str = "answered") -> RolloutJudged | None:
        story = Story(spec=spec)
        for _ in range(200):
            bad = story.chance(share)
            story.ask(
                "new", **(failed("engine") if bad and outcome == "failed" else {"format_valid": not bad})
            )
            if (found := story.judged()) is not None:
                return found
        return None

    verdicts = [alone(0), alone(0.5), alone(0.5, "failed")]
    assert [found and found.verdict for found in verdicts] == ["passed", "failed", "failed"]
    told = [reason for found in verdicts[1:] if found for reason in found.reasons]
    assert len(told) == 2
    assert all("at most 5.0% is tolerated" in reason and "champion" not in reason for reason in told), told


def guarded(share: float = 0.0, **spec: Any) -> Story:
    story = Story(spec=RolloutSpec(**spec))
    fails = lambda: {"format_valid": not story.chance(share)}  # noqa: E731
    found = story.both(400, new=fails, old=fails)
    assert found is not None
    assert found.verdict == "passed"
    story.follow(step("production", source="canary", at=AT + DAY, generation=5, replaces="old"))
    return story


def live(story: Story, most: int, make: Any) -> RolloutJudged | None:
    for number in range(most):
        story.ask("new", role="production", at=AT + DAY + timedelta(seconds=number), **make())
        if (found := story.judged(DAY + timedelta(seconds=number))) is not None:
            return found
    return None


def test_what_is_worse_in_production_than_its_predecessor_was_is_found():
    story = guarded(0.05)
    found = live(story, 300, lambda: {"format_valid": not story.chance(0.5)})
    assert found is not None
    assert (found.verdict, found.decided_by, found.stage) == ("failed", "guard", "canary")
    assert found.generation == 5  # another event than the trial's
    assert "invalid outputs in production" in found.reasons[0]
    assert {bound.figure: bound.low > 0 for bound in found.bounds} == {"errors": False, "invalid": True}


def test_a_guard_is_silent_where_nothing_is_worse_and_ends():
    story = guarded(0.05)
    busy = lambda: {"format_valid": not story.chance(0.05), "latency_seconds": 9.0}  # noqa: E731
    assert live(story, 400, busy) is None
    assert live(story, 40, lambda: failed("engine")) is None
    assert story.judged(2 * DAY) is None
    assert story.trials["open"] == {}


@pytest.mark.parametrize(
    "step_up",
    [
        step("production", source="canary", at=AT + DAY, decided_by="command"),
        step("production", source="retired", at=AT + DAY),
    ],
)
def test_what_no_trial_put_into_production_is_not_guarded(step_up: Any):
    story = Story()
    assert story.both(60) is not None
    story.follow(step_up)
    assert story.trials["open"] == {}


def test_lifecycle_events_come_twice_and_in_any_order():
    story = guarded()
    for event in (step("canary"), step("production", source="canary", at=AT + DAY, generation=5)):
        story.follow(event)
    assert [trial["guard"] for trial in story.trials["open"].values()] == [True]
    gone = ModelRolledback(
        project="p", model_id="new", from_stage=Stage.PRODUCTION, restored="old", cause="c", reason="r"
    )
    for event in (new_event(gone, source="/test"), step("canary"), step("production", source="canary")):
        story.follow(event)
    assert story.trials["open"] == {}


def test_a_step_within_a_stage_begins_nothing_anew():
    story = Story()
    story.ask("new")
    for source, to in (("canary", "canary"), ("evaluated", "canary"), ("registered", "evaluated")):
        story.follow(step(to, source=source, at=AT + DAY))
    assert story.trials["open"]["new"]["candidate"]["requests"] == 1
    story.follow(step("retired", source="canary"))
    assert story.trials["open"] == {}


def test_the_state_of_a_long_trial_stays_small():
    story = Story()
    for number in range(1_500):
        user = f"user-{number:012d}"
        valid = not story.chance(0.2)
        model = "new" if number % 5 == 0 else "old"
        latency = float(story.random.lognormal(0, 1))
        story.count(model, user=user, format_valid=None if model == "new" else valid, latency_seconds=latency)
    assert len(json.dumps(story.trials)) < 16_000
