"""The fold alone: what opens an alarm, what ends it, what counts at all, and that cuts change nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts.events.monitoring import DriftResolved, InferenceScored, WindowJudged
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.asking import FEWEST_MORE
from tunewheel_monitor.fold import Facts, fold, tick
from tunewheel_monitor.knowledge import Production
from tunewheel_monitor.state import ERASED, PLACES_KEPT, ProjectState, Seen, without

from .conftest import START, spec_of
from .scores import COVERAGE, answer, facts, novel, rating

EXAMPLES = Path(__file__).parents[3] / "contracts/examples"

Events = list[Any]


def run(
    items: Sequence[InferenceScored], known: Facts | None = None, state: ProjectState | None = None
) -> Events:
    """Return what is decided, without the figures that each window tells."""
    return [event for event in everything(items, known, state) if not isinstance(event, WindowJudged)]


def everything(
    items: Sequence[InferenceScored], known: Facts | None = None, state: ProjectState | None = None
) -> Events:
    state, known = state or ProjectState(), known or facts()
    return [said.data for item in items for said in fold(state, item, known)]


def detected(events: Events) -> dict[str, DriftDetected]:
    return {event.signal: event for event in events if isinstance(event, DriftDetected)}


def resolved(events: Events) -> dict[str, DriftResolved]:
    return {event.detector: event for event in events if isinstance(event, DriftResolved)}


def test_novel_questions_open_alarms_with_what_shows_them() -> None:
    events = run([novel(n) for n in range(40)])
    clusters = detected(events)["clusters"]
    assert (clusters.detector, clusters.dataset_id, clusters.model_id) == ("input", "ds-1", "desk-1")
    assert clusters.window.completions == 20
    assert clusters.alarm_id is not None
    assert clusters.evidence == f"monitor/desk/alarms/{clusters.alarm_id}.json"
    assert clusters.suggested_action == "collect_labels"
    assert clusters.examples == (), "texts lie in the evidence alone"
    ids = [event.event_id() for event in events if isinstance(event, DriftDetected)]
    assert len(ids) == len(set(ids)), "two detectors that speak at one window are two events"


def test_a_new_topic_asks_for_labels_near_it() -> None:
    events = run([novel(n) for n in range(40)])
    wanted = {event.alarm_id: event for event in events if isinstance(event, LabelsRequested)}
    clusters = detected(events)["clusters"]
    request = wanted[clusters.alarm_id or ""]
    assert clusters.cluster is not None
    assert request.centroid == clusters.cluster.centroid
    assert set(request.completion_ids) >= set(clusters.cluster.completion_ids)
    assert request.request_id == (clusters.alarm_id or "").replace("alarm-", "labels-")


def test_while_an_alarm_is_open_its_request_names_more_of_its_prompts() -> None:
    state, by_request = ProjectState(), dict[str, list[LabelsRequested]]()
    for event in run([novel(n) for n in range(200)], state=state):
        if isinstance(event, LabelsRequested):
            by_request.setdefault(event.alarm_id, []).append(event)
    for alarm in state.alarms.values():
        first, *more = by_request[alarm.alarm_id]
        assert (first.revision, first.more_prompts) == (1, ())
        assert more, "an early alarm knows a few of its prompts"
        for number, (before, after) in enumerate(pairwise((first, *more)), 2):
            assert after.completion_ids[: len(before.completion_ids)] == before.completion_ids
            assert len(set(after.completion_ids)) >= len(set(before.completion_ids)) + FEWEST_MORE
            assert after.more_prompts[-1] == f"monitor/desk/alarms/{alarm.alarm_id}.{number}.json"
            assert (after.revision, after.centroid) == (number, first.centroid)
        assert len({event.event_id() for event in (first, *more)}) == 1 + len(more)


def test_a_request_about_one_topic_names_no_questions_about_another() -> None:
    state = ProjectState()
    run([novel(n) for n in range(40)], state=state)
    events = run([novel(n, about=9) for n in range(40, 400)], state=state)
    alarm = state.alarms["clusters"]
    named = [event for event in events if isinstance(event, LabelsRequested)]
    assert all(event.alarm_id != alarm.alarm_id for event in named)


def looked_up(number: int, similarity: float, spec: str = "a" * 64) -> InferenceScored:
    return answer(number, similarity=similarity, retrieval_sha256=spec)


def test_what_the_documents_lack_asks_for_documents_and_for_no_labels() -> None:
    state, spread = ProjectState(), [0.4 + 0.001 * (n % 97) for n in range(1_000)]
    calm = run([looked_up(n, similarity) for n, similarity in enumerate(spread)], state=state)
    assert calm == []
    lacking = [looked_up(n, 0.2 if n % 2 else spread[n - 1_000]) for n in range(1_000, 1_200)]
    opened, alarm = run(lacking, state=state)
    assert isinstance(opened, AlarmOpened)
    assert isinstance(alarm, DriftDetected)
    assert (alarm.signal, alarm.suggested_action) == ("documents", "update_documents")
    assert alarm.evidence == f"monitor/desk/alarms/{alarm.alarm_id}.json"
    published = run([looked_up(n + 1_200, one) for n, one in enumerate(spread)], state=state)
    assert {one.reason for one in resolved(published).values()} == {"calm"}


def test_a_spec_that_was_declared_since_changes_nothing_of_what_was_answered_before() -> None:
    """A fold that lags, or is repeated from an old checkpoint, knows the newest spec."""
    spread = [0.4 + 0.001 * (n % 97) for n in range(1_000)]
    items = [looked_up(n, similarity) for n, similarity in enumerate(spread)]
    items += [looked_up(1_000 + n, 0.2 if n % 2 else spread[n]) for n in range(200)]
    items.insert(990, looked_up(5_000, 0.9, "b" * 64))
    then = run(items, facts(spec=spec_of(retrieval={"top_k": 4})))
    assert list(detected(then)) == ["documents"]
    assert run(items, facts(spec=spec_of(retrieval={"top_k": 5}))) == then


def test_known_questions_open_none() -> None:
    assert run([answer(n) for n in range(400)]) == []


def test_a_shift_that_lasts_is_one_alarm_and_ends_once_it_is_calm() -> None:
    known = [answer(n) for n in range(1_000, 2_000)]
    events = run([novel(n) for n in range(200)] + known)
    assert [event.signal for event in events if isinstance(event, DriftDetected)].count("clusters") == 1
    over = resolved(events)["clusters"]
    assert (over.reason, over.alarm_id) == ("calm", detected(events)["clusters"].alarm_id)
    assert over.inferences >= 60, "three windows at least"
    assert over.resolved_at > over.raised_at


def test_an_alarm_is_over_once_a_version_that_was_trained_on_it_is_calm() -> None:
    state = ProjectState()
    first = run([novel(n) for n in range(60)], state=state)
    next_version = facts(production=Production("desk-2", "ds-2", 9))
    taken_over = {"model_id": "desk-2", "dataset_id": "ds-2"}
    events = run([answer(n, **taken_over) for n in range(100, 160)], next_version, state)
    over = resolved(events)["clusters"]
    assert (over.reason, over.dataset_id) == ("covered", "ds-2")
    assert over.alarm_id == detected(first)["clusters"].alarm_id


def test_an_alarm_whose_detector_sees_nothing_any_more_ends_too() -> None:
    state = ProjectState()
    run([novel(n) for n in range(60)], state=state)
    unseen: dict[str, Any] = {"novelty": None, "novel": None, "cell": None}
    quiet = [answer(n, **unseen) for n in range(100, 340)]
    assert not resolved(run(quiet[:220], state=state)), "it may be seen again"
    assert {one.reason for one in resolved(run(quiet[220:], state=state)).values()} == {"calm"}
    assert not state.alarms


def test_a_version_without_a_reference_is_calm_too() -> None:
    state = ProjectState()
    run([novel(n) for n in range(60)], state=state)
    next_version = facts(production=Production("desk-2", "ds-2", 9), coverage=None)
    unseen: dict[str, Any] = {"model_id": "desk-2", "dataset_id": "ds-2", "novelty": None, "novel": None}
    over = resolved(run([answer(n, **unseen) for n in range(100, 160)], next_version, state))
    assert over["clusters"].reason == "covered"
    assert not state.alarms


def rated_down(state: ProjectState) -> DriftDetected:
    """Let people turn their thumbs down, over some three minutes, until that is an alarm."""
    before = [answer(0), *(rating(n, "up") for n in range(1, 200))]
    return detected(run([*before, *(rating(n, "down") for n in range(200, 240))], state=state))["feedback"]


def test_an_alarm_about_ratings_ends_after_seven_days_of_answers_that_nobody_rates() -> None:
    state = ProjectState()
    alarm = rated_down(state)
    later = [answer(1_000 + n, at=START + timedelta(days=n)) for n in range(1, 9)]
    assert not resolved(run(later[:6], state=state)), "by the sixth day somebody may still rate"
    over = resolved(run(later[6:], state=state))["feedback"]
    assert (over.reason, over.alarm_id) == ("unrated", alarm.alarm_id)
    assert over.resolved_at == START + timedelta(days=8), "the answers' own time"
    assert over.inferences == 8


def test_one_rating_a_week_keeps_an_alarm_open_and_bad_ones_raise_it_again() -> None:
    state = ProjectState()
    first = rated_down(state)
    days = range(1, 30)
    answers = [answer(1_000 + n, at=START + timedelta(days=n)) for n in days]
    ratings = {n: rating(2_000 + n, "down", at=START + timedelta(days=n)) for n in days if n % 6 == 0}
    items = [item for n, one in zip(days, answers, strict=True) for item in (one, ratings.get(n)) if item]
    assert not resolved(run(items, state=state))
    assert "feedback" in resolved(run([answer(3_000, at=START + timedelta(days=40))], state=state))
    back = [rating(4_000 + n, "down", at=START + timedelta(days=41)) for n in range(20)]
    assert detected(run(back, state=state))["feedback"].alarm_id != first.alarm_id


UNWATCHED = {
    "switched off": facts(spec=spec_of(drift={"enabled": False})),
    "without its family": facts(spec=spec_of(drift={"window": 20, "detectors": ["format"]})),
    "on the bare base": facts(production=Production("base", None, 9)),
    "stopped": facts(production=None),
}


@pytest.mark.parametrize("known", UNWATCHED.values(), ids=list(UNWATCHED))
def test_alarms_that_nobody_watches_for_any_more_end_with_and_without_traffic(known: Facts) -> None:
    for items in ([answer(100)], []):
        state = ProjectState()
        first = detected(run([novel(n) for n in range(60)], state=state))
        events = run(items, known, state)
        events += [said.data for said in tick(state, "desk", known, START + timedelta(days=1))]
        over = resolved(events)
        assert over.keys() == first.keys()
        assert {(one.reason, one.dataset_id) for one in over.values()} == {("off", "ds-1")}
        assert not state.alarms


def test_a_state_of_another_release_has_the_detectors_of_this_one() -> None:
    state = ProjectState()
    run([novel(n) for n in range(60)], state=state)
    assert state.version is not None
    for name in ("errors", "feedback", "novelty"):
        del state.version.detectors[name]
    state.version.detectors["bygone"] = state.version.detectors.pop("clusters")
    state.alarms["bygone"] = state.alarms.pop("clusters")
    state.figures["bygone"] = state.figures.pop("clusters")
    of_format = state.version.detectors["format"]["evidence"]
    share = of_format["threshold"]
    of_format["threshold"] = 2 * share
    failed: dict[str, Any] = {"outcome": "failed", "fault": "engine", "format_valid": None}
    later = [*(answer(n) for n in range(100, 300)), *(answer(n, **failed) for n in range(300, 400))]
    events = run([*later, rating(7, "up")], state=state)
    assert resolved(events)["bygone"].reason == "off"
    assert "errors" in detected(events)
    assert "bygone" not in state.version.detectors
    assert "bygone" not in state.figures
    assert of_format["threshold"] == share


def test_a_total_outage_is_seen() -> None:
    failed: dict[str, Any] = {"outcome": "failed", "fault": "engine", "format_valid": None}
    healthy = [answer(n) for n in range(200)]
    events = run(healthy + [answer(n, **failed) for n in range(200, 300)])
    assert "errors" in detected(events)
    assert detected(events)["errors"].suggested_action == "investigate"


def test_what_is_no_routed_answer_of_production_fills_no_window() -> None:
    left_out: list[dict[str, Any]] = [
        {"pinned": True},
        {"role": RouteRole.CANARY, "model_id": "desk-2"},
        {"role": RouteRole.SHADOW, "model_id": "desk-2", "shadow_of": "c-1"},
        {"outcome": "cancelled"},
        {"outcome": "failed", "fault": "client"},
        {"model_id": "desk-0"},
    ]
    state = ProjectState()
    items = [novel(n, **left_out[n % len(left_out)]) for n in range(120)]
    assert run([answer(0), *items[1:]], state=state) == []
    assert state.version is not None
    assert state.version.answers.items == 1


def test_clients_own_prompts_are_no_format_failures() -> None:
    own: dict[str, Any] = {"format_valid": False, "overrides": ("system_prompt",)}
    assert run([answer(n, **own) for n in range(200)]) == []


def test_the_next_version_s_feedback_is_judged_by_what_the_one_before_had() -> None:
    state = ProjectState()
    tenth = ["down" if n % 10 == 0 else "up" for n in range(1_000)]
    before = [answer(5_000), *(rating(n, thumb) for n, thumb in enumerate(tenth))]
    assert run(before, state=state) == []
    taken_over = facts(production=Production("desk-2", "ds-2", 9))
    third = ["down" if n % 3 == 0 else "up" for n in range(1_000, 1_400)]
    worse = [rating(n, thumb, model_id="desk-2") for n, thumb in zip(range(1_000, 1_400), third, strict=True)]
    begins = answer(6_000, model_id="desk-2", dataset_id="ds-2")
    assert "feedback" in detected(run([begins, *worse], taken_over, state))


def test_of_a_completion_the_first_rating_counts() -> None:
    state = ProjectState()
    rated = [rating(7, "down", scored=f"again-{n}") for n in range(50)]
    run([answer(0), *rated], state=state)
    assert state.version is not None
    assert state.version.ratings.items == 1


def test_without_a_dataset_or_a_model_in_production_nothing_is_judged() -> None:
    state = ProjectState()
    assert run([novel(n) for n in range(60)], facts(production=None), state) == []
    assert run([novel(n) for n in range(99)], facts(production=Production("desk-1", None, 1)), state) == []
    assert state.version is None


def test_another_p_value_holds_from_the_next_window_on_and_the_evidence_stays() -> None:
    state, strict = ProjectState(), facts(spec=spec_of(drift={"window": 20, "p_value": 1e-60}))
    assert run([answer(n) for n in range(20)], state=state) == []
    assert run([novel(n) for n in range(20, 60)], strict, state) == [], "no alarm by the new limit"
    told = detected(run([novel(n) for n in range(60, 80)], state=state))
    assert "clusters" in told, "what was gathered under the other limit counts"
    lenient = facts(spec=spec_of(drift={"window": 20, "p_value": 0.5}))
    assert resolved(run([novel(n) for n in range(80, 400)], lenient, state)) == {}
    assert state.alarms["clusters"].alarm_id == told["clusters"].alarm_id


def test_another_window_holds_from_the_next_window_on() -> None:
    state, longer = ProjectState(), facts(spec=spec_of(drift={"window": 200}))
    run([answer(n) for n in range(10)], state=state)
    run([answer(n) for n in range(10, 30)], longer, state)
    assert state.version is not None
    assert (state.version.answers.items, state.version.answers.size) == (10, 200)
    assert state.version.ratings.size == 20, "of which none began"
    fresh = ProjectState()
    run([answer(0)], longer, fresh)
    assert fresh.version is not None
    for name, opened in fresh.version.detectors.items():
        mine, same = state.version.detectors[name], name not in ("feedback", "corrections", "agreement")
        assert (mine["most"] == opened["most"]) is same, name
        assert mine.get("threshold") == opened.get("threshold")
        assert (mine.get("evidence", {}).get("stake") == opened.get("evidence", {}).get("stake")) is (
            same or name == "clusters"
        ), name
    run([rating(n, "up") for n in range(200)], longer, state)
    assert state.version.detectors["feedback"]["voters"]["window"] == 200
    assert run([novel(n) for n in range(30, 219)], longer, state) == [], "the window is not full"
    assert "clusters" in detected(run([novel(219)], longer, state))


def test_a_window_that_another_release_began_goes_by_the_spec() -> None:
    state = ProjectState()
    run([answer(n) for n in range(10)], state=state)
    told = json.loads(json.dumps(state.as_json()))
    for window in ("answers", "ratings"):
        del told["version"][window]["size"], told["version"][window]["p_value"]
    again = ProjectState.from_json(told)
    assert "clusters" in detected(run([novel(n) for n in range(10, 40)], state=again))
    assert again.version is not None
    assert again.version.answers.items == 0


def of_an_earlier_release(state: ProjectState) -> ProjectState:
    """Return what a release wrote that knew windows of one size, no mixture of regions, and no clock of
    ratings."""
    told = json.loads(json.dumps(state.as_json()))
    for window in ("answers", "ratings"):
        del told["version"][window]["size"], told["version"][window]["p_value"]
    for name in ("mixture", "margin", "recent"):
        del told["version"]["detectors"]["novelty"][name]
    for alarm in told["alarms"].values():
        del alarm["rated_at"]
    return ProjectState.from_json(told)


def test_novelty_that_another_release_opened_begins_anew_and_its_alarm_stays_open() -> None:
    state, known = ProjectState(), facts(coverage=replace(COVERAGE, levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    alarm = detected(run([novel(n) for n in range(60)], known, state))["novelty"]
    again = of_an_earlier_release(state)
    assert not resolved(run([novel(n) for n in range(60, 400)], known, again))
    assert again.alarms["novelty"].alarm_id == alarm.alarm_id
    assert again.looks["novelty"] == 17, "every window was measured"


def test_of_a_version_that_another_took_over_from_nothing_begins_anew() -> None:
    state = ProjectState()
    run([novel(n) for n in range(60)], state=state)
    again, moved = of_an_earlier_release(state), facts(production=Production("desk-2", "ds-2", 9))
    run([novel(n) for n in range(60, 100)], moved, again)
    assert again.version is not None
    assert "mixture" not in again.version.detectors["novelty"], "the regions known are those of ds-2"


def test_the_seven_days_without_ratings_begin_with_the_first_answer_after_an_upgrade() -> None:
    state = ProjectState()
    alarm = rated_down(state)
    again = of_an_earlier_release(state)
    later = [answer(1_000 + n, at=START + timedelta(days=n)) for n in (30, 36, 37)]
    assert not resolved(run(later[:2], state=again)), "ratings of the days before may have been folded"
    assert resolved(run(later[2:], state=again))["feedback"].alarm_id == alarm.alarm_id


SHORT = facts(spec=spec_of(drift={"window": 10, "cooldown_completions": 0}))


def traffic() -> list[InferenceScored]:
    """Return a healthy time, a new topic, ratings, an outage, and a calm end, in windows of ten."""
    failed: dict[str, Any] = {"outcome": "failed", "fault": "engine", "format_valid": None}
    shifted = [novel(n) if n % 2 else answer(n) for n in range(10, 40)]
    rated = [rating(n, "down" if n > 30 else "up") for n in range(20, 40)]
    outage = [answer(n, **failed) for n in range(40, 50)]
    calm = [answer(n) for n in range(50, 110)]
    return [*(answer(n) for n in range(10)), *shifted, *rated, *outage, *calm]


TRAFFIC = traffic()
WHOLE = everything(TRAFFIC, SHORT)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(1, len(TRAFFIC) - 1), st.integers(0, 12)), max_size=4))
def test_wherever_batches_end_and_whatever_comes_twice_the_alarms_are_the_same(
    cuts: list[tuple[int, int]],
) -> None:
    state, events = ProjectState(), list[Any]()
    begin = 0
    for cut, again in sorted(cuts):
        events += everything(TRAFFIC[max(0, begin - again) : cut], SHORT, state)
        state = ProjectState.from_json(json.loads(json.dumps(state.as_json())))
        begin = cut
    events += everything(TRAFFIC[begin:], SHORT, state)
    assert events == WHOLE
    assert {"clusters", "errors"} <= detected(WHOLE).keys()


def test_names_are_known_again_until_many_others_came() -> None:
    seen = Seen()
    assert [seen.add("a"), seen.add("b"), seen.add("a")] == [True, True, False]
    again = Seen(seen.packed())
    assert not again.add("b")
    for n in range(39_000):
        again.add(str(n))
    assert not again.add("a")
    for n in range(1_000):
        again.add(f"later {n}")
    assert again.add("a")
    assert len(again.packed()) == 40_000 * 8


def test_what_may_be_shown_is_bounded() -> None:
    state = ProjectState()
    run([novel(n) for n in range(PLACES_KEPT + 50)], state=state)
    assert len(state.places) == PLACES_KEPT
    assert list(state.places)[-1] == f"c-{PLACES_KEPT + 49:05d}"


def test_an_erased_completion_is_gone_where_completions_are_named() -> None:
    state = ProjectState()
    run([novel(n, format_valid=False) for n in range(30)], state=state)
    told = state.as_json()
    told["trials"]["open"]["desk-2"] = {"waiting": {"c-00029": {}, "c-1": {}}, "users": {}}
    names = frozenset(f"c-{n:05d}" for n in range(30))
    left = without(told, names)
    assert not any(name in json.dumps(left) for name in names)
    assert ERASED in json.dumps(left)
    assert left["trials"]["open"]["desk-2"]["waiting"] == {"c-1": {}}


@pytest.mark.parametrize("again", [1, 2])
def test_questions_that_an_earlier_release_held_ready_are_erased_too(again: int) -> None:
    state = ProjectState()
    run([answer(1)], state=state)
    told = json.loads(json.dumps(state.as_json()))
    told["version"]["detectors"]["novelty"]["farthest"] = [[0.9, "c-7"]] * again + [[0.8, "c-8"]]
    left = without(told, frozenset({"c-7"}))["version"]["detectors"]["novelty"]["farthest"]
    assert left == [[0.9, ERASED]] * again + [[0.8, "c-8"]]


def test_an_erased_name_that_is_also_that_of_a_figure_changes_no_figure() -> None:
    state = ProjectState()
    run([novel(n) for n in range(30)], state=state)
    told = json.loads(json.dumps(state.as_json()))
    told["offsets"] = {"3": 7}
    told["trials"]["open"]["desk-2"] = {"stage": "shadow", "waiting": {}, "users": {"candidate": [3]}}
    told["version"]["detectors"]["novelty"]["waiting"] = [{"3": [0.5, 1]}]
    names = ("3", "0", "1", "-4", "answers", "seen", "waiting", "candidate", "desk-1", "ds-1", "novelty")
    assert without(told, frozenset(names)) == told


def test_what_is_kept_of_an_alarm_for_ever_holds_no_words_of_users() -> None:
    told = json.loads((EXAMPLES / "drift.detected/valid/input.json").read_text("utf-8"))
    cluster = {
        "prompts": 9,
        "share": 0.1,
        "centroid": [1.0, 0.0],
        "radius": 0.3,
        "keywords": ["solar", "panel"],
    }
    alarm = DriftDetected.model_validate(told | {"alarm_id": "alarm-1", "cluster": cluster})
    kept = AlarmOpened.of(alarm).model_dump_json()
    assert "solar" in alarm.model_dump_json()
    assert "solar" not in kept


def test_an_erased_question_leaves_the_pool_with_its_vector_and_is_asked_about_no_more() -> None:
    state = ProjectState()
    run([novel(n) for n in range(40)], state=state)
    pool = state.as_json()["version"]["detectors"]["novelty"]["asking"]["pool"]
    gone = frozenset(list(pool)[:2])
    assert gone
    left = ProjectState.from_json(without(state.as_json(), gone))
    assert left.version is not None
    kept = left.version.detectors["novelty"]["asking"]["pool"]
    assert kept == {name: entry for name, entry in pool.items() if name not in gone}
    later = run([novel(n) for n in range(40, 240)], state=left)
    grown = [event for event in later if isinstance(event, LabelsRequested)]
    assert grown
    for event in grown:
        named = {name for one in event.clusters for name in one.completion_ids}
        assert named <= set(event.completion_ids)
        assert not gone & set(event.completion_ids)
