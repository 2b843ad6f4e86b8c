from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.turns import LabelCluster
from tunewheel_monitor.detectors.picking import MOST, fresh, name_of, note, pick, unasked
from tunewheel_monitor.detectors.picking import encoded as encode

DIMENSIONS, TOPICS = 64, 4


class Pool:
    """Topics as directions, questions as points near them, and odd questions alone."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.topics = self.rng.normal(size=(TOPICS, DIMENSIONS))
        self.state = fresh()

    def ask(self, name: str, point: Any, *, times: int = 1) -> None:
        for n in range(times):
            self.state["seen"] += 1
            note(self.state, name if n == 0 else f"{name}-{n}", encode(point))

    def fill(self, each: int, alone: int) -> None:
        """Ask ``each`` questions about every topic, mixed with ``alone`` odd questions."""
        named = [(f"t{topic}-{n}", topic) for n in range(each) for topic in range(TOPICS)]
        named += [(f"odd-{n}", -1) for n in range(alone)]
        for place in self.rng.permutation(len(named)):
            name, topic = named[place]
            point = self.rng.normal(size=DIMENSIONS)
            self.ask(name, point if topic < 0 else self.topics[topic] + 0.6 * point)


@pytest.fixture(params=range(3))
def pool(request: pytest.FixtureRequest) -> Pool:
    return Pool(request.param)


def topics_of(names: Any) -> list[str]:
    return [name.partition("-")[0] for name in names]


def test_topics_come_before_odd_questions_and_each_gets_some(pool: Pool):
    pool.fill(each=8, alone=30)
    first = topics_of(pick(pool.state, most=16).completion_ids)
    assert first.count("odd") <= 1
    assert min(first.count(f"t{topic}") for topic in range(TOPICS)) >= 1


def test_a_text_that_many_send_is_one_entry_and_comes_after_the_topics(pool: Pool):
    pool.fill(each=8, alone=10)
    pool.ask("hello", pool.rng.normal(size=DIMENSIONS), times=300)
    names = pick(pool.state, most=100).completion_ids
    assert [name for name in names if name.startswith("hello")] == ["hello"]
    assert names.index("hello") >= 12


def test_nearly_the_same_text_is_asked_about_once(pool: Pool):
    pool.fill(each=6, alone=5)
    for n in range(20):
        pool.ask(f"again-{n}", pool.topics[0] + 0.05 * pool.rng.normal(size=DIMENSIONS))
    assert topics_of(pick(pool.state, most=100).completion_ids).count("again") == 1


def test_prompts_about_one_topic_are_one_cluster_with_its_repetitions(pool: Pool):
    pool.fill(each=6, alone=10)
    pool.ask("t0-again", pool.topics[0], times=40)
    picked = pick(pool.state, most=30)
    of_topic = [one for one in picked.clusters if "t0" in topics_of(one.completion_ids)]
    assert [set(topics_of(one.completion_ids)) for one in of_topic] == [{"t0"}]
    assert of_topic[0] == picked.clusters[0]
    assert 40 < of_topic[0].size <= 46
    assert picked.questions == 4 * 6 + 10 + 40


def test_a_later_choice_adds_to_the_clusters_that_it_had_and_keeps_their_names(pool: Pool):
    pool.fill(each=10, alone=5)
    first = pick(pool.state, most=12)
    pool.ask("t9-new", pool.rng.normal(size=DIMENSIONS))
    second = pick(pool.state, most=12, asked=first.completion_ids, clusters=first.clusters)
    assert not set(first.completion_ids) & set(second.completion_ids)
    grown = {one.cluster_id: set(one.completion_ids) for one in second.clusters}
    for before in first.clusters:
        assert grown[before.cluster_id] >= set(before.completion_ids)
    everything = [name for one in second.clusters for name in one.completion_ids]
    assert sorted(everything) == sorted((*first.completion_ids, *second.completion_ids))


def test_a_cluster_whose_prompts_have_left_the_pool_stays_in_the_request(pool: Pool):
    pool.fill(each=3, alone=0)
    before = LabelCluster(cluster_id=name_of("old"), completion_ids=("old",), size=9)
    assert before in pick(pool.state, most=5, asked=("old",), clusters=(before,)).clusters


def test_an_empty_pool_gives_nothing_and_a_full_one_drops_the_oldest():
    state = fresh()
    assert pick(state, most=5).completion_ids == ()
    rng = np.random.default_rng(1)
    for n in range(MOST + 1):
        note(state, f"q-{n}", encode(rng.normal(size=8)))
    assert len(state["pool"]) == MOST
    assert "q-0" not in state["pool"]


def test_few_questions_and_equal_ones_are_chosen_too():
    state = fresh()
    for n in range(2):
        note(state, f"q-{n}", encode(np.eye(8)[n]))
    assert set(pick(state, most=5).completion_ids) == {"q-0", "q-1"}


@pytest.mark.parametrize(
    ("plain", "encoded", "used"),
    [(40, 30, "plain"), (30, 30, "encoded"), (MOST, 59, "plain"), (MOST, 60, "encoded")],
)
def test_the_encoders_questions_are_chosen_from_once_there_are_enough(plain: int, encoded: int, used: str):
    state, rng = fresh(), np.random.default_rng(2)
    for name, count in (("plain", plain), ("encoded", encoded)):
        for n in range(count):
            note(state, f"{name}-{n}", encode(rng.normal(size=16)), encoded=name == "encoded")
    assert {*topics_of(pick(state, most=20).completion_ids)} == {used}
    assert unasked(state, ["plain-0", "encoded-0"]) == (plain if used == "plain" else encoded) - 1


def test_a_pool_of_an_earlier_release_takes_the_encoders_questions_too():
    state: Any = {"seen": 3, "pool": {"q-0": [encode(np.eye(8)[0]), 1, 1]}}
    assert pick(state, most=5).completion_ids == ("q-0",)
    note(state, "q-1", encode(np.eye(8)[1]), encoded=True)
    assert pick(state, most=5).completion_ids == ("q-1",)
