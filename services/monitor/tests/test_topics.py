"""Questions of known labels and of new ones, along directions that matter and directions that do not."""

from __future__ import annotations

import numpy as np
import pytest
from tunewheel_monitor.coverage import Coverage
from tunewheel_monitor.topics import FEWEST_LABELS, Topics, left_out, shrunk_covariance

WIDTH, LABELS, TEXTS = 24, 30, 600
NOISY = 16
"""Directions in which the questions of one label differ as much as those of any two."""


class World:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)
        self.centres = self.rng.normal(size=(LABELS + 8, WIDTH)) * np.where(
            np.arange(WIDTH) < NOISY, 0.1, 1.0
        )

    def asked(self, labels: np.ndarray) -> np.ndarray:
        spread = np.where(np.arange(WIDTH) < NOISY, 1.0, 0.35)
        return (self.centres[labels] + spread * self.rng.normal(size=(len(labels), WIDTH))).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def told_apart(known: np.ndarray, new: np.ndarray) -> float:
    """Return the area under the curve."""
    return float((new[:, None] > known).mean())


def test_labels_tell_a_new_topic_better_than_distances_do(world: World) -> None:
    labels = np.arange(TEXTS) % LABELS
    reference = world.asked(labels)
    known = world.asked(world.rng.integers(0, LABELS, 1_000))
    new = world.asked(world.rng.integers(LABELS, LABELS + 8, 1_000))
    areas = []
    for names in ((), [f"label-{label}" for label in labels]):
        coverage = Coverage.fit(reference, names)
        areas.append(told_apart(coverage.score(known).novelty, coverage.score(new).novelty))
        assert 0.02 < coverage.score(known).novel.mean() < 0.09
    assert areas[1] > areas[0] + 0.05


def test_the_references_own_questions_are_as_strange_as_more_of_the_same(world: World) -> None:
    labels = np.arange(TEXTS) % LABELS
    fitted = Topics.fit(world.asked(labels), [str(label) for label in labels], spread=0.1)
    assert fitted is not None
    topics, own = fitted
    same = topics.strangeness(world.asked(world.rng.integers(0, LABELS, 2_000)))
    assert own.mean() == pytest.approx(0.0, abs=1e-6)
    assert own.std() == pytest.approx(0.1)
    assert abs(same.mean()) < 0.02
    assert 0.03 < (same > np.quantile(own, 0.95)).mean() < 0.08


def test_few_labels_or_few_texts_of_each_are_no_topics(world: World) -> None:
    for labels in (np.arange(TEXTS) % (FEWEST_LABELS - 1), np.arange(TEXTS) // 3):
        rows = world.asked(labels % LABELS)
        assert Topics.fit(rows, [str(label) for label in labels], spread=1.0) is None


@pytest.mark.parametrize("different", [0, 1, 12])
def test_questions_that_are_all_alike_or_alike_by_label_are_no_topics(different: int) -> None:
    texts = np.random.default_rng(4).normal(size=(12, WIDTH)) * (np.arange(12) < different)[:, None]
    if different == 1:
        texts[:] = texts[0]
    labels = np.arange(240) % 12
    coverage = Coverage.fit(texts[labels], [str(label) for label in labels])
    assert coverage.topics is None
    assert np.isfinite(coverage.score(texts).novelty).all()


def test_a_label_with_one_question_does_not_know_it_when_it_is_left_out(world: World) -> None:
    labels = np.append(np.arange(TEXTS) % LABELS, LABELS)
    found = left_out(world.asked(labels), labels)
    assert np.isfinite(found).all()
    assert found[-1] > np.quantile(found, 0.95)


def test_a_covariance_of_few_rows_can_be_inverted(world: World) -> None:
    covariance = shrunk_covariance(world.asked(np.arange(5)))
    assert np.linalg.eigvalsh(covariance)[0] > 1e-3
    assert np.linalg.eigvalsh(shrunk_covariance(np.zeros((5, 4), dtype=np.float32)))[0] > 0
