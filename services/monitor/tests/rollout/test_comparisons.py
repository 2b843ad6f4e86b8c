"""Whether a candidate's answers are right, from pairs that differ to the verdict."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import AnswersCompared, ComparisonsRequested
from tunewheel_contracts.events.monitoring import InferenceScored, LogPosition
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.rollout_spec import RolloutSpec, ShadowPolicy, UndecidedPolicy
from tunewheel_monitor.rollout import comparisons
from tunewheel_monitor.rollout import trials as rollout

from .test_trials import AT, DAY, Story, step

JUDGE, OTHER_JUDGE = "a" * 64, "b" * 64
LENIENT = RolloutSpec(shadow=ShadowPolicy(max_label_changes=1))


class Shadow(Story):
    """A shadow stage in which people compare. ``to_show``: what the trial has to show."""

    def __init__(
        self,
        *,
        to_show: float | None = None,
        spec: RolloutSpec = LENIENT,
        judge: JudgeSpec | None = None,
    ) -> None:
        super().__init__("shadow", spec)
        self.trials["open"]["new"]["to_show"] = to_show
        self.asked: list[ComparisonsRequested] = []
        self.judge_named = judge

    @property
    def state(self) -> dict[str, Any]:
        return self.trials["open"]["new"]["comparisons"]

    def pair(self, *, differs: bool = True, copy_first: bool = False, **changes: Any) -> str:
        """Let both answer a question; return the champion's completion."""
        name = f"q{self.number}"
        place = {"position": LogPosition(partition=1, offset=self.number)}
        sides = [
            ("old", {"completion_id": name, "label": "a"}),
            ("new", {"shadow_of": name, "label": "b" if differs else "a"}),
        ]
        for model, told in reversed(sides) if copy_first else sides:
            self.ask(model, **(told | place | changes))
        self.asked += [one.data for one in rollout.ask(self.trials, "p", self.judge_named)]
        return name

    def compare(self, name: str, preference: str, *, reviewer: str | None = "ann", **changes: Any) -> None:
        self.number += 1
        told = {"project": "p", "request_id": "r", "model_id": "new", "completion_id": name}
        data = AnswersCompared(**(told | {"preference": preference, "reviewer": reviewer} | changes))
        event = new_event(data, source="/test", time=AT + timedelta(seconds=self.number))
        rollout.count(self.trials, comparisons.scored(event), self.spec)

    def judge(self, name: str, preference: str, judge: str = JUDGE) -> None:
        self.compare(name, preference, reviewer=None, judge=judge)


def said(name: str, preference: str, judge: str | None = None) -> InferenceScored:
    told = {"project": "p", "request_id": "r", "model_id": "new", "completion_id": name}
    data = AnswersCompared(**told, preference=preference, judge=judge)
    return comparisons.scored(new_event(data, source="/test"))


def bound_of(found: Any) -> Any:
    return next(bound for bound in found.bounds if bound.figure == "answers")


def test_a_well_formed_wrong_candidate_fails():
    story, found = Shadow(), None
    while found is None and story.number < 200:
        story.compare(story.pair(), "worse")
        found = story.judged()
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "bounds")
    assert bound_of(found).low > 0
    assert bound_of(found).pairs < 20
    assert found.reasons[0].startswith("answers: worse in ")


@pytest.mark.parametrize(
    ("says", "decided_by"),
    [(("worse", "better"), "no gain"), (("worse",), "no gain"), (("better",), "bounds")],
)
def test_an_undecided_model_that_gains_nothing_makes_room(says: tuple[str, ...], decided_by: str):
    story = Shadow(to_show=0.0)
    names = [story.pair(differs=n % 5 == 0) for n in range(700)][::5]
    found = None
    for n, name in enumerate(names):
        story.compare(name, says[n % len(says)])
        if found := story.judged():
            break
    assert found is not None
    assert (found.verdict, found.decided_by) == ("passed" if says == ("better",) else "failed", decided_by)


@pytest.mark.parametrize("to_show", [-0.1, 0.0])
def test_an_undecided_model_passes_by_what_people_say_of_the_pairs_that_differ(to_show: float):
    story = Shadow(to_show=to_show)
    names = [story.pair(differs=n % 5 == 0) for n in range(200)]
    assert story.judged() is None  # errors, form and latency do not suffice
    for name in names[::5]:
        story.compare(name, "better")
    found = story.judged()
    assert found is not None
    assert found.verdict == "passed"
    bound = bound_of(found)
    assert (bound.margin, bound.champion, bound.candidate) == (-to_show, 0.2, 0)
    assert bound.high < bound.margin
    assert "20% of answers differ" in found.reasons[1]


@pytest.mark.parametrize(("to_show", "decided_by"), [(-0.1, "bounds"), (0.0, "no gain")])
def test_a_candidate_that_says_nearly_the_same_needs_nobodys_time(to_show: float, decided_by: str):
    story, found = Shadow(to_show=to_show), None
    for n in range(200):
        story.pair(differs=n == 50)
        found = found or story.judged()
    assert found is not None
    assert (found.decided_by, bound_of(found).pairs) == (decided_by, 0)


@pytest.mark.parametrize(
    ("text", "missing"),
    [("shop", "no differing pair was compared by a person: use `tunewheel review"), (None, "serving.log")],
)
def test_a_trial_that_shows_nothing_says_at_its_deadline_who_can_give_the_evidence(
    text: str | None, missing: str
):
    story = Shadow(to_show=-0.1)
    for n in range(60):
        name = story.pair(label=None, answer=text and f"{text}-{n}", copy_first=True)
        story.state["drawn"].pop(name, None)
    for model, answer in (("old", "x"), ("new", "y")):
        changes = {"shadow_of": "q", "answer": text and answer} if model == "new" else {"completion_id": "q"}
        story.ask(model, **({"answer": text and answer} | changes))
    found = story.judged(after=8 * DAY)
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "deadline")
    assert any(missing in reason for reason in found.reasons)


def test_answers_without_labels_differ_by_their_texts():
    story = Shadow()
    for said in ({"answer": "text-1"}, {"answer": "text-1", "overrides": ("system_prompt",)}):
        story.pair(label=None, **said)
    assert story.state["differ"] == [0, 1]
    assert not story.state["drawn"]


def test_what_is_no_comparison_of_a_drawn_pair_of_this_trial_does_not_count():
    story = Shadow(to_show=-0.1)
    name, same = story.pair(copy_first=True), story.pair(differs=False)
    story.compare(same, "worse")  # was not drawn
    story.compare(name, "worse", model_id="other")
    assert not story.state["values"]
    for preference in ("better", "better", "worse"):  # the second is the first again
        story.compare(name, preference)
    story.compare(name, "worse", reviewer="bea")
    assert story.state["values"] == {"-1.0000": 1}
    for other in [story.pair() for _ in range(40)]:
        story.compare(other, "worse")
    assert (found := story.judged()) is not None
    assert found.verdict == "failed"
    story.compare(name, "worse")
    assert story.judged() is None


def test_requests_grow_with_the_pairs_and_name_all_in_the_order_of_their_drawing():
    story = Shadow()
    names = [story.pair(copy_first=n % 2 == 0) for n in range(42)]
    assert [one.revision for one in story.asked] == [1, 2, 3, 4]
    assert [one.items for one in story.asked] == [5, 10, 20, 40]
    assert story.asked[-1].completion_ids == tuple(names[:40])
    assert len({one.request_id for one in story.asked}) == 1
    assert len(story.asked[-1].pairs) == 4
    assert (story.asked[0].against, story.asked[0].model_id) == ("old", "new")


def test_a_trial_of_an_earlier_release_goes_on():
    story = Shadow()
    del story.trials["open"]["new"]["comparisons"], story.trials["open"]["new"]["to_show"]
    story.trials = rollout.read(story.trials)
    story.compare(story.pair(), "worse")
    assert story.state["values"] == {"1.0000": 1}


def test_a_judge_counts_only_by_how_it_differs_from_people():
    story = Shadow(to_show=-0.1)
    names = [story.pair() for _ in range(44)]
    for name in names:
        story.judge(name, "better")
    story.judge(names[0], "worse")  # its second thought
    story.judge(names[1], "worse", OTHER_JUDGE)
    assert not story.state["values"]
    story.compare(names[0], "same")
    assert story.state["values"] == {"0.0000": 1}  # the judge says the same of all: it tells nothing apart
    assert sum(pair["spent"] for pair in story.state["drawn"].values()) == 4
    story.compare(names[43], "worse")  # the judge's value of it is spent
    assert sum(story.state["values"].values()) == 1


def test_people_are_asked_about_the_pairs_whose_judgement_is_never_spent():
    story = Shadow(to_show=0.5, judge=JudgeSpec(base_url="https://judge.example/v1", model="m"))
    names = [story.pair() for _ in range(45)]
    story.state["drawn"].pop(names[3])  # an erasure
    names += [story.pair() for _ in range(60)]
    request, state = story.asked[-1], story.state
    asked = request.completion_ids[: request.for_people]
    assert (request.items, len(asked), asked[-1]) == (39, 39, names[39])
    for name in request.completion_ids:
        comparisons.compare(state, said(name, "better", JUDGE))
    for name in asked:
        assert comparisons.compare(state, said(name, "same"))
    assert not comparisons.awaits_people(state)


def test_a_judge_that_comes_after_people_changes_nothing():
    story = Shadow()
    first, second = story.pair(), story.pair()
    story.compare(first, "better")
    story.judge(second, "better")
    story.compare(second, "worse")
    assert story.state["values"] == {"-1.0000": 1, "1.0000": 1}


def simulated(loss: float, *, judge: float | None, seed: int, questions: int = 250) -> dict[str, Any]:
    """Return a trial of a candidate that differs in a fifth of its answers, of which people compare 40.
    ``judge``: how often the judge agrees with people; if it does not, it prefers the candidate."""
    random = np.random.default_rng(seed)
    state = comparisons.new_comparisons()
    for n in range(questions):
        answers = ({"answer": "a", "place": [0, n], "model_id": "old"}, {"answer": "b", "place": [0, n]})
        comparisons.see(state, f"q{n}", answers[random.random() < 0.2], answers[0])
    names = comparisons.drawn(state)
    truth = random.choice([1.0, 0.0, -1.0], size=len(names), p=[0.45 + loss * 2.5, 0.1, 0.45 - loss * 2.5])
    words = {value: word for word, value in comparisons.LOSSES.items()}
    for by, some in (("judge", names), ("person", names[:40])):
        for name, value in zip(some, truth, strict=False):
            if by == "judge" and judge is None:
                continue
            told = value if by == "person" or random.random() < (judge or 0) else -1.0
            comparisons.compare(state, said(name, words[told], JUDGE if by == "judge" else None))
    return state


@pytest.mark.parametrize("judge", [None, 0.8])
def test_simulated_trials_end_as_the_bounds_promise(judge: float | None):
    def passed(loss: float, to_show: float = -0.1) -> int:
        states = [simulated(loss, judge=judge, seed=seed) for seed in range(16)]
        return sum(comparisons.is_shown(state, to_show) for state in states)

    equal = [simulated(0.0, judge=judge, seed=seed) for seed in range(16)]
    assert not any(comparisons.is_harmed(state, 0.05, 0.01 / 8) for state in equal)
    assert passed(0.1) == 0
    assert passed(-0.1) == 16


BUDGET = RolloutSpec(shadow=ShadowPolicy(max_label_changes=1), undecided=UndecidedPolicy(requests=30, days=2))


def doubted(to_show: float | None = -0.1) -> Shadow:
    """Return a trial as the registry's step begins it."""
    story = Shadow(spec=BUDGET)
    story.trials = rollout.new()
    story.follow(step("shadow", to_show=to_show))
    return story


def test_the_registry_s_step_says_what_a_trial_must_show_and_a_pass_takes_it_back():
    story = doubted()
    assert story.trials["open"]["new"]["to_show"] == -0.1
    story.follow(step("shadow", source="shadow"))
    story.follow(step("shadow", to_show=-0.1))  # delivered again
    assert story.trials["open"]["new"]["to_show"] is None


def test_a_pass_during_the_trial_of_an_undecided_model_begins_the_deadline_of_the_stage():
    hour = RolloutSpec(shadow=ShadowPolicy(deadline_seconds=3600))
    trials = rollout.new()
    rollout.follow(trials, step("shadow", to_show=-0.1))
    noon = AT + DAY
    passed = step("shadow", source="shadow", at=noon)
    for _ in range(2):  # an event may come twice
        rollout.follow(trials, passed)
        assert rollout.judge(trials, "p", hour, noon + timedelta(minutes=59)) == []
    (found,) = rollout.judge(trials, "p", hour, noon + timedelta(hours=1))
    assert (found.data.verdict, found.data.decided_by) == ("failed", "deadline")


def test_a_trial_that_must_show_something_ends_after_its_requests_if_nobody_is_asked():
    story, found = doubted(), None
    for _ in range(40):
        story.pair(label=None)
        found = found or story.judged()
    assert found is not None
    assert (found.verdict, found.decided_by, found.requests) == ("failed", "deadline", 30)
    assert found.reasons[0].startswith("undecided after 30 requests since 2026-01-01")
    assert any("the evaluation was undecided" in reason for reason in found.reasons)


def test_people_who_are_asked_to_compare_have_until_the_last_day_of_the_budget():
    story = doubted()
    names = [story.pair() for _ in range(40)]
    assert story.judged() is None
    for name in names[:20]:
        story.compare(name, "same")
    assert story.judged(2 * DAY - timedelta(seconds=1)) is None
    found = story.judged(2 * DAY)
    assert found is not None
    assert (found.verdict, found.decided_by) == ("failed", "deadline")
    assert found.reasons[0].startswith("undecided 172,800 s after it began")


def test_a_trial_that_need_show_nothing_has_no_budget():
    story = doubted(None)
    for _ in range(35):
        story.pair(label=None, format_valid=None)
    assert story.judged(3 * DAY) is None
