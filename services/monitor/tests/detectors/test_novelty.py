from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.monitoring import Encoded
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE, ODD, Coverage
from tunewheel_monitor.detectors import Opening, State, evidence
from tunewheel_monitor.detectors.novelty import Novelty, caution, encoder_of
from tunewheel_monitor.detectors.picking import encoded, pick
from tunewheel_monitor.detectors.points import REMEMBERED, margin

from .conftest import alarms, answer, opening, windows

TOPICS, DIMENSIONS, SPREAD = 20, 24, 0.35


class World:
    """Questions as points about the centres of topics; every topic is as diverse as the others but one."""

    def __init__(self, spread: float = SPREAD) -> None:
        self.rng = np.random.default_rng(5)
        self.spread = spread
        self.centres = self.rng.normal(size=(TOPICS + 4, DIMENSIONS))
        self.coverage = Coverage.fit(self.draw(np.arange(1_000) % TOPICS))

    def draw(self, topics: Any) -> Any:
        spread = self.spread * np.where(topics == 0, 1.5, 1.0)[:, None]
        return self.centres[topics] + spread * self.rng.normal(size=(len(topics), DIMENSIONS))

    def questions(self, topics: Any, **fields: Any) -> list[Any]:
        scores = self.coverage.score(self.draw(topics))
        rows = zip(scores.cell.tolist(), scores.novelty.tolist(), scores.novel.tolist(), strict=True)
        return [
            answer(completion_id=f"c-{n}", dataset_id="ds-1", cell=c, novelty=d, novel=o, **fields)
            for n, (c, d, o) in enumerate(rows)
        ]

    def known(self, count: int) -> Any:
        return self.rng.integers(0, TOPICS, count)

    def mixed(self, count: int, new: float) -> Any:
        fresh = self.rng.integers(TOPICS, TOPICS + 4, count)
        return np.where(self.rng.random(count) < new, fresh, self.known(count))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def found(world: World, topics: Any, **fields: Any) -> list[Any]:
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    return windows(detector, state, world.questions(topics, **fields))


def test_known_questions_are_no_novelty_in_whatever_mixture(world: World):
    zipf = 1 / np.arange(1, TOPICS + 1)
    hot = world.rng.choice(TOPICS, 10_000, p=zipf / zipf.sum())
    for topics in (world.known(10_000), hot):
        assert alarms(found(world, topics)) == []


def test_a_fifth_of_new_topics_is_seen_within_600_questions(world: World):
    seen = [alarms(found(world, world.mixed(600, 0.2))) for _ in range(20)]
    assert sum(bool(numbers) for numbers in seen) >= 18


def test_a_change_after_long_health_is_seen_too(world: World):
    topics = np.concatenate([world.known(10_000), world.mixed(600, 0.2)])
    assert 100 <= min(alarms(found(world, topics))) < 106


def test_it_says_what_it_saw(world: World):
    finding = found(world, world.mixed(600, 0.5))[-1]
    assert finding.action == "collect_labels"
    assert finding.p_value < finding.threshold <= 4e-4
    assert finding.effect > 0.2
    assert finding.reference.startswith("1000 questions of the dataset")


def test_people_may_be_asked_about_questions_that_are_odd_but_not_novel(world: World):
    detector, facts = Novelty(), world.coverage.facts
    odd, novel = facts.levels[LEVELS.index(ODD)], facts.levels[LEVELS.index(NOVEL_QUANTILE)]
    state = detector.open(opening(dataset_id="ds-1", coverage=facts))
    for name, far in (("usual", odd - 0.001), ("odd", (odd + novel) / 2), ("novel", novel + 0.1)):
        vector = encoded(np.random.default_rng(len(name)).normal(size=8))
        told = {"dataset_id": "ds-1", "cell": 0, "novelty": far, "novel": far > novel, "vector": vector}
        detector.see(state, answer(completion_id=name, **told))
    assert list(state["asking"]["pool"]) == ["odd", "novel"]


def test_a_state_of_an_earlier_release_has_no_pool_and_begins_one(world: World):
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    del state["asking"]
    detector.see(state, world.questions(np.array([TOPICS]))[0])
    assert state["asking"]["seen"] == 1


def test_a_state_has_what_the_release_before_reads_after_a_rollback(world: World):
    fields = (
        "evidence dataset_id texts usual levels mean spread sums counts lately waiting window recent mixture"
    )
    fields += " margin sample doubt of votes most farthest"
    state = Novelty().open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    windows(Novelty(), state, world.questions(world.mixed(200, 0.5)))
    assert set(fields.split()) <= state.keys()
    assert state["farthest"] == []


def test_one_user_cannot_make_a_topic(world: World):
    topics = np.where(np.arange(2_000) % 4 == 0, TOPICS, world.known(2_000))
    items = world.questions(topics)
    for item, topic in zip(items, topics, strict=True):
        object.__setattr__(item, "user", "poisoner" if topic == TOPICS else f"user-{id(item)}")
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    assert alarms(windows(detector, state, items)) == []


def canned(world: World, share: float, forms: int, count: int) -> list[Any]:
    """Return known questions, a share of which are some texts that the dataset lacks, by Zipf's law."""
    often = 1 / np.arange(1, forms + 1)
    texts = world.questions(np.full(forms, TOPICS))
    for name, text in enumerate(texts):
        assert text.novel
        object.__setattr__(text, "vector", f"text {name}")
    drawn = world.rng.choice(forms, count, p=often / often.sum())
    known = world.questions(world.known(count))
    return [
        texts[drawn[n]] if world.rng.random() < share else item.model_copy(update={"vector": f"other {n}"})
        for n, item in enumerate(known)
    ]


@pytest.mark.parametrize(("share", "forms"), [(0.05, 4), (0.1, 30), (0.2, 4)])
def test_texts_that_many_send_alike_are_no_novelty_however_often_they_come(
    world: World, share: float, forms: int
):
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    seen = windows(detector, state, canned(world, share, forms, 10_000))
    assert alarms(seen) == []
    assert seen[-1].effect > share / 2, "the share of novel questions is told as it is"
    assert len(state["asked"]) == REMEMBERED
    assert alarms(windows(detector, state, world.questions(world.mixed(600, 0.2)))), "new topics are seen"


def test_texts_that_many_send_alike_are_no_novelty_to_a_state_of_an_earlier_release(
    world: World, blurred: World
):
    detector, state = Novelty(), judged_by(blurred, world)
    for part in (state, state["encoded"]):
        del part["asked"]
    items = [
        blurred_one.model_copy(
            update={
                "encoded": Encoded(
                    encoder="e", cell=one.cell, novelty=one.novelty, novel=one.novel, vector=one.vector
                )
            }
        )
        for one, blurred_one in zip(
            canned(world, 0.2, 10, 5_000), blurred.questions(blurred.known(5_000)), strict=True
        )
    ]
    assert alarms(windows(detector, state, items)) == []
    assert state["encoded"]["asked"]


@pytest.mark.parametrize(("share", "users", "is_seen"), [
    (0.3, 2_000, True), (0.5, 2_000, True), (0.1, 2_000, False), (0.5, 10, False), (0.5, 0, False),
])  # fmt: skip
def test_what_many_named_users_ask_in_the_same_words_is_novel_where_it_fills_the_windows(
    world: World, share: float, users: int, is_seen: bool
):
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    items = [
        one.model_copy(update={"user": f"user-{n % users}" if users else None})
        for n, one in enumerate(canned(world, share, 1, 2_000))
    ]
    assert bool(alarms(windows(detector, state, items))) is is_seen


def test_a_state_of_an_earlier_release_counts_how_often_a_text_comes(world: World):
    state = Novelty().open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    del state["times"]
    items = [
        one.model_copy(update={"user": f"user-{n}"}) for n, one in enumerate(canned(world, 0.5, 1, 2_000))
    ]
    assert alarms(windows(Novelty(), state, items))


def test_repeats_alone_neither_end_an_alarm_nor_raise_one(world: World):
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    again = canned(world, 1.0, 1, 300)
    assert alarms(windows(detector, state, again)) == []
    new = [
        one.model_copy(update={"vector": f"new {n}"})
        for n, one in enumerate(world.questions(world.mixed(600, 0.5)))
    ]
    assert alarms(windows(detector, state, new))[-1] == 5
    assert alarms(windows(detector, state, again)) == [0, 1, 2]
    assert alarms(windows(detector, state, world.questions(world.known(1_000))))[-1:] != [9]


def test_errors_of_many_regions_cancel_out_and_those_of_a_popular_region_do_not():
    counts = [15.0] * 64
    spread_out, popular = [10.0] * 64, [400.0] + [1.0] * 63
    assert margin(spread_out, counts, 2.0) == pytest.approx(2.0 / (64 * 35) ** 0.5)
    assert margin(popular, counts, 2.0) > 5 * margin(spread_out, counts, 2.0)
    assert margin(popular, [4_000.0, *counts[1:]], 2.0) < 0.1 * margin(popular, counts, 2.0) + 0.02


def test_the_effect_is_that_of_late_questions_however_long_all_was_well(world: World):
    finding = found(world, np.concatenate([world.known(5_000), world.mixed(1_000, 0.5)]))[-1]
    assert finding.effect > 0.2


def test_without_a_reference_it_says_nothing(world: World):
    detector = Novelty()
    assert windows(detector, detector.open(opening()), world.questions(world.known(100))) == []
    state = detector.open(opening(dataset_id="ds-2", coverage=world.coverage.facts))
    assert windows(detector, state, world.questions(world.known(100))) == []


def reworded(world: World, share: float, noise: float) -> Coverage:
    """Return a reference of which a share of the questions is held a second time, in other words."""
    asked = world.draw(np.arange(800) % TOPICS)
    again = asked[: round(share * 800)]
    return Coverage.fit(np.concatenate([asked, again + noise * world.rng.normal(size=again.shape)]))


@pytest.mark.parametrize(("share", "noise"), [(0.25, 0.1), (0.5, 0.1), (1.0, 0.1), (1.0, 0.15)])
def test_a_dataset_with_rewordings_of_its_questions_raises_no_alarm_about_known_ones(
    share: float, noise: float
):
    world = World()
    world.coverage = reworded(world, share, noise)
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    assert alarms(windows(detector, state, world.questions(world.known(2_000)))) == []
    assert "do not represent production" in (caution(state) or "")
    later = windows(detector, state, world.questions(world.mixed(600, 0.2)))
    assert alarms(later), "what is new after the first 500 questions is seen"
    assert later[-1].reference.startswith("500 questions of production")


def test_a_dataset_whose_own_questions_are_a_fair_standard_is_judged_by_it_from_the_first_prompt(
    world: World,
):
    state = Novelty().open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    assert (state["sample"], caution(state)) == (None, None)
    facts = dataclasses.replace(world.coverage.facts, pairs=0.5)
    doubtful = Novelty().open(opening(dataset_id="ds-1", coverage=facts))
    near = [
        one.model_copy(update={"novelty": one.novelty * 0.9}) for one in world.questions(world.known(600))
    ]
    assert alarms(windows(Novelty(), doubtful, near)) == []
    assert (doubtful["of"], caution(doubtful)) == ("the dataset", None), "production lies no farther"


def test_known_topics_in_bursts_are_no_novelty(world: World):
    for _ in range(10):
        hot = np.repeat(world.rng.integers(1, TOPICS, 6), 100)
        topics = np.where(world.rng.random(600) < 0.8, hot, world.known(600))
        assert alarms(found(world, topics)) == []


def encoded_too(world: World, sharp: World, topics: Any, *, every: int = 1) -> list[Any]:
    """Return questions that an encoder scored too, every so many of them. It tells topics apart better."""
    plain, scored = world.questions(topics), sharp.questions(topics)
    for number, (item, other) in enumerate(zip(plain, scored, strict=True)):
        if number % every == 0:
            seen = Encoded(encoder="e", cell=other.cell, novelty=other.novelty, novel=other.novel)
            object.__setattr__(item, "encoded", seen)
    return plain


def judged_by(world: World, sharp: World, encoder: str = "e") -> State:
    detector = Novelty()
    state = detector.open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    detector.encode(state, encoder, opening(dataset_id="ds-1", coverage=sharp.coverage.facts))
    return state


@pytest.fixture(scope="module")
def blurred() -> World:
    """A world whose topics overlap, as static vectors see them."""
    return World(spread=3.0)


def test_an_encoder_sees_what_static_vectors_do_not(world: World, blurred: World):
    topics = world.mixed(600, 0.2)
    alone = Novelty().open(opening(dataset_id="ds-1", coverage=blurred.coverage.facts))
    assert alarms(windows(Novelty(), alone, encoded_too(blurred, world, topics))) == []
    found = windows(Novelty(), judged_by(blurred, world), encoded_too(blurred, world, topics))
    assert alarms(found)
    assert found[-1].reference.endswith("to a sentence encoder")


@pytest.mark.parametrize("every", [1, 7])
def test_a_sample_is_enough_and_known_questions_are_no_novelty(world: World, blurred: World, every: int):
    state = judged_by(blurred, world)
    known = encoded_too(blurred, world, world.known(4_000), every=every)
    assert alarms(windows(Novelty(), state, known)) == []
    later = encoded_too(blurred, world, world.mixed(600 * every, 0.2), every=every)
    assert alarms(windows(Novelty(), state, later))


def test_where_the_encoder_scored_a_question_it_says_whether_people_may_be_asked(
    world: World, blurred: World
):
    state = judged_by(blurred, world)
    odd, novel = (state["encoded"]["levels"][LEVELS.index(level)] for level in (ODD, NOVEL_QUANTILE))
    far = {"dataset_id": "ds-1", "cell": 0, "novelty": 9.0, "novel": True}
    by_table, by_encoder = (encoded(np.random.default_rng(n).normal(size=8)) for n in (1, 2))
    Novelty().see(state, answer(completion_id="not encoded", vector=by_table, **far))
    for name, novelty in (("usual", odd - 0.001), ("odd", (odd + novel) / 2), ("novel", novel + 0.1)):
        found = Encoded(encoder="e", cell=0, novelty=novelty, novel=novelty > novel, vector=by_encoder + name)
        Novelty().see(state, answer(completion_id=name, encoded=found, vector=by_table, **far))
    assert list(state["asking"]["pool"]) == ["not encoded"]
    assert list(state["asking"]["encoded"]["pool"]) == ["odd", "novel"]


def test_scores_of_another_encoder_are_not_mixed_in(world: World, blurred: World):
    state = judged_by(blurred, world, encoder="another")
    before = dict(state["encoded"])
    windows(Novelty(), state, encoded_too(blurred, world, world.mixed(600, 0.5)))
    assert (encoder_of(state), state["encoded"]) == ("another", before)


def test_the_pool_of_another_encoder_goes_with_it_and_that_of_the_same_encoder_stays(
    world: World, blurred: World
):
    state, begun = judged_by(blurred, world), opening(dataset_id="ds-1", coverage=world.coverage.facts)
    far = {"dataset_id": "ds-1", "cell": 0, "novelty": 9.0, "novel": True}
    for encoder, size in (("e", 24), ("e", 24), ("newer", 16), ("newer", 16)):
        Novelty().encode(state, encoder, begun)
        name = f"{encoder} {len(state['asking'].get('encoded', {'pool': {}})['pool'])}"
        vector = encoded(np.random.default_rng(len(name)).normal(size=size))
        found = Encoded(encoder=encoder, cell=0, novelty=9.0, novel=True, vector=vector)
        Novelty().see(state, answer(completion_id=name, encoded=found, **far))
        assert pick(state["asking"], most=3).completion_ids[:1]
    assert all(name.startswith("newer") for name in state["asking"]["encoded"]["pool"])


def test_a_dataset_with_rewordings_raises_no_alarm_by_the_encoder(blurred: World):
    sharp = World()
    sharp.coverage = reworded(sharp, 1.0, 0.1)
    state = judged_by(blurred, sharp)
    known = encoded_too(blurred, sharp, sharp.known(2_000))
    assert alarms(windows(Novelty(), state, known)) == []
    assert "do not represent production" in (caution(state) or "")


def test_a_changed_spec_reaches_the_encoder_s_evidence_too(world: World, blurred: World):
    state = judged_by(blurred, world)
    windows(Novelty(), state, encoded_too(blurred, world, world.known(300)))
    wealth = list(state["encoded"]["evidence"]["wealth"])
    strict = Opening(
        drift=DriftSpec(window=50, p_value=0.001), dataset_id="ds-1", coverage=world.coverage.facts
    )
    evidence.follow(state, Novelty().open(strict))
    assert state["encoded"]["evidence"]["stake"] == 1 / 50
    assert state["encoded"]["evidence"]["wealth"] == wealth


def test_a_state_of_an_earlier_release_goes_on(world: World):
    state = Novelty().open(opening(dataset_id="ds-1", coverage=world.coverage.facts))
    del state["sample"], state["of"]
    assert alarms(windows(Novelty(), state, world.questions(world.mixed(600, 0.5))))
