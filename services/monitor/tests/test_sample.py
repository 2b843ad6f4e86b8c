"""Which prompts the sentence encoder scores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import Vectors, unit_length
from tunewheel_monitor.coverage import LEVELS, ODD, Coverage, Encoding
from tunewheel_monitor.sample import MOST_PROJECTS, Sample

from .conftest import START


def drawn(sample: Sample, minutes: float, count: int, project: str = "desk") -> list[int]:
    return sample.draw(project, [START + timedelta(minutes=minutes)] * count)


def test_an_hour_of_any_traffic_draws_at_most_the_hour_s_number():
    sample = Sample(per_hour=300)
    first = len(drawn(sample, 0, 10_000))
    assert first == 30
    assert sum(len(drawn(sample, minute, 1_000)) for minute in range(1, 61)) == 300
    assert len(drawn(sample, 10_000, 10_000)) == 300, "what was not drawn in a quiet week is not drawn later"


def test_all_of_little_traffic_is_drawn():
    sample = Sample(per_hour=300)
    assert all(len(drawn(sample, 12 * turn, 30)) == 30 for turn in range(10))


def test_a_batch_is_drawn_evenly_and_each_project_has_its_own_number():
    sample = Sample(per_hour=40)
    assert drawn(sample, 0, 100) == [0, 33, 66, 99]
    assert drawn(sample, 0, 100) == []
    assert drawn(sample, 0, 4, "shop") == [0, 1, 2, 3]


def test_prompts_out_of_order_draw_no_more():
    sample = Sample(per_hour=60)
    assert len(drawn(sample, 60, 100)) == 6
    assert drawn(sample, 0, 100) == []
    assert len(drawn(sample, 61, 100)) == 1


def test_nothing_is_drawn_without_a_number_or_a_prompt():
    assert drawn(Sample(), 0, 10) == []
    assert drawn(Sample(per_hour=10), 0, 0) == []


def test_endless_projects_take_bounded_memory():
    sample = Sample(per_hour=10)
    for number in range(MOST_PROJECTS + 5):
        drawn(sample, 0, 1, f"p-{number}")
    assert len(sample._left) == MOST_PROJECTS


def test_the_vector_of_an_odd_question_is_sent_too_since_people_may_be_asked_about_it():
    rng = np.random.default_rng(0)

    class Points(SentenceEmbedder):
        def units(self, texts: Sequence[str]) -> Vectors:
            return unit_length(rng.normal(size=(len(texts), 8)))

    coverage = Coverage.fit(rng.normal(size=(300, 8)))
    sample = Sample(Points(), per_hour=10_000)
    found = [one for _, one in sample.scores("desk", ["?"] * 300, [START] * 300, Encoding("e", coverage))]
    odd = coverage.facts.levels[LEVELS.index(ODD)]
    assert [one.vector is not None for one in found] == [one.novelty > round(odd, 4) for one in found]
    assert any(one.vector is not None and not one.novel for one in found)
