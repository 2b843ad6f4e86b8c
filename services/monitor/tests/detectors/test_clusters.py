from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_embedding.static import StaticEmbedder, unit_length
from tunewheel_monitor.coverage import Coverage, CoverageFacts
from tunewheel_monitor.detectors.clusters import MOST_CLUSTERS, Clusters, decoded, encoded

from .conftest import alarms, answer, opening, windows

BANKING = Path(__file__).resolve().parents[5] / "shared" / "data" / "banking77" / "train.csv"
DIMENSIONS = 48
FACTS = CoverageFacts(
    texts=1_000,
    novel_rate=0.05,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    cell_shares=(1.0,),
    cell_points=(900.0,),
    cell_counts=(1_000,),
    mean_points=0.9,
    spread=1.2,
    pairs=0.03,
    join_radius=0.3,
)


def questions(rng: Any, count: int, *, topics: dict[int, float], outliers: float = 0.05) -> list[Any]:
    """Return answers: of new topics by share, outliers far from everything, and covered ones."""
    centres = np.random.default_rng(9).normal(size=(20, DIMENSIONS))
    kinds = rng.choice(
        [*topics, -1, -2], count, p=[*topics.values(), outliers, 1 - outliers - sum(topics.values())]
    )
    items: list[Any] = []
    for n, kind in enumerate(kinds):
        novel = kind != -2
        point = (
            centres[kind] + 0.4 * rng.normal(size=DIMENSIONS) if kind >= 0 else rng.normal(size=DIMENSIONS)
        )
        items.append(
            answer(
                completion_id=f"c-{n}",
                dataset_id="ds-1",
                novel=novel,
                vector=encoded(point) if novel else None,
            )
        )
    return items


def found(items: list[Any], state: Any = None) -> list[Any]:
    detector = Clusters()
    state = state if state is not None else detector.open(opening(dataset_id="ds-1", coverage=FACTS))
    return windows(detector, state, items)


def test_outliers_are_no_cluster():
    items = questions(np.random.default_rng(1), 10_000, topics={}, outliers=0.08)
    assert alarms(found(items)) == []


def test_a_new_topic_of_a_twentieth_is_seen_within_600_questions():
    rng = np.random.default_rng(2)
    seen = [alarms(found(questions(rng, 600, topics={3: 0.05}))) for _ in range(20)]
    assert sum(bool(numbers) for numbers in seen) >= 18


def test_it_describes_the_cluster():
    rng = np.random.default_rng(3)
    finding = found(questions(rng, 600, topics={3: 0.2}))[-1]
    assert finding.drifted
    assert finding.action == "collect_labels"
    assert finding.cluster is not None
    assert 0.1 < finding.cluster.share < 0.3
    centre = np.random.default_rng(9).normal(size=(20, DIMENSIONS))[3]
    assert 1 - np.dot(finding.cluster.centroid, centre / np.linalg.norm(centre)) < 0.05
    assert finding.completion_ids == finding.cluster.completion_ids
    assert len(finding.completion_ids) == 40


def test_a_topic_that_comes_after_long_health_is_seen_and_goes_away_again():
    rng = np.random.default_rng(4)
    parts = [questions(rng, n, topics=t) for n, t in ((6_000, {}), (600, {5: 0.1}), (1_500, {}))]
    seen = alarms(found([item for part in parts for item in part]))
    assert 60 <= min(seen) < 66
    assert max(seen) < 76


def test_one_user_cannot_make_a_cluster():
    items = questions(np.random.default_rng(5), 2_000, topics={3: 0.2}, outliers=0.0)
    for item in items:
        object.__setattr__(item, "user", "poisoner" if item.novel else None)
    assert max(finding.effect for finding in found(items)) < 0.05
    assert sum(finding.cluster.prompts for finding in found(items)[-1:]) <= 41


def test_the_same_words_again_and_again_are_no_topic():
    items = questions(np.random.default_rng(8), 2_000, topics={3: 0.2}, outliers=0.0)
    first = next(item for item in items if item.novel)
    for item in items:
        if item.novel:
            object.__setattr__(item, "vector", first.vector)
    assert alarms(found(items)) == []


def test_the_state_stays_small():
    detector = Clusters()
    state = detector.open(opening(dataset_id="ds-1", coverage=FACTS))
    found(questions(np.random.default_rng(6), 2_000, topics={3: 0.1}, outliers=0.5), state)
    assert len(state["clusters"]) <= MOST_CLUSTERS


def test_vectors_keep_their_direction():
    vector = np.random.default_rng(7).normal(size=384)
    unit = vector / np.linalg.norm(vector)
    assert decoded(encoded(vector)) @ unit > 0.998
    assert decoded(encoded(np.zeros(6))).tolist() == [0.0] * 6


@pytest.mark.parametrize("changes", [{"dataset_id": "ds-2"}, {"novel": None}, {"of": "rating"}])
def test_what_says_nothing_of_the_reference_is_left_out(changes: dict[str, Any]):
    item = answer(**({"dataset_id": "ds-1", "novel": True, "vector": encoded(np.ones(6))} | changes))
    assert found([item] * 100) == []


@pytest.mark.skipif(not BANKING.is_file(), reason=f"{BANKING} is missing: it is not part of the repository")
@pytest.mark.parametrize(("share", "dropped"), [(0.5, 0.6), (1.0, 0.6), (1.0, 0.3)])
def test_known_questions_are_no_cluster_to_a_dataset_with_rewordings(share: float, dropped: float):
    rng = np.random.default_rng(11)
    texts = [row["text"] for row in csv.DictReader(BANKING.open(encoding="utf-8"))]
    texts = [texts[n] for n in rng.permutation(len(texts))[:3_000]]
    again = [text.split() for text in texts[: round(1_000 * share / (1 + share))]]
    fewer = [" ".join(word for word in words if rng.random() >= dropped) or words[0] for words in again]
    vectors, embed = StaticEmbedder().embed(texts), StaticEmbedder().embed
    coverage = Coverage.fit(np.concatenate([vectors[: 1_000 - len(again)], embed(fewer)]))
    scores, units = coverage.score(vectors[1_000:]), unit_length(vectors[1_000:])
    rows = zip(scores.novelty.tolist(), scores.novel.tolist(), units, strict=True)
    asked = [
        answer(completion_id=f"c-{n}", dataset_id="ds-1", novelty=novelty, novel=novel, vector=encoded(unit))
        for n, (novelty, novel, unit) in enumerate(rows)
    ]
    state = Clusters().open(opening(dataset_id="ds-1", coverage=coverage.facts))
    assert alarms(found(asked, state)) == []
    assert np.mean(scores.novel) > 0.08, "the dataset takes too many known questions for novel"


@pytest.mark.parametrize("pairs", [0.1, 0.3])
def test_a_new_topic_is_a_cluster_to_a_dataset_with_rewordings_too(pairs: float):
    rng = np.random.default_rng(10)
    state = Clusters().open(opening(dataset_id="ds-1", coverage=dataclasses.replace(FACTS, pairs=pairs)))
    known = questions(rng, 2_000, topics=dict.fromkeys(range(8), 0.02), outliers=0.0)
    for item in known:
        object.__setattr__(item, "novelty", rng.uniform(0.5, 0.7) if item.novel else 0.3)
    assert alarms(found(known, state)) == []
    new = questions(rng, 600, topics={9: 0.1}, outliers=0.0)
    for item in new:
        object.__setattr__(item, "novelty", 0.8 if item.novel else 0.3)
    assert alarms(found(new, state))
