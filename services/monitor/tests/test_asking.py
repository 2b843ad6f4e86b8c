"""How a request for labels grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.events.turns import LabelCluster, LabelsRequested
from tunewheel_monitor.asking import AT_ONCE, FEWEST_FIRST, FEWEST_MORE, MOST_SHOWN, more, picked
from tunewheel_monitor.detectors import Finding, picking
from tunewheel_monitor.state import ERASED, Alarm, ProjectState

DIMENSIONS = 64
LATELY = 100
"""How many of the prompts that were asked about are still in the pool."""


def found(pool: dict[str, Any]) -> Finding:
    told: dict[str, Any] = {
        "statistic_name": "e",
        "statistic": 0.2,
        "usual": 0.0,
        "items": 100,
        "effect": 0.2,
    }
    return Finding(
        detector="novelty", p_value=1e-9, threshold=1e-3, effect_unit="share", floor=0.02, reference="",
        action="collect_labels", asking=pool, **told,
    )  # fmt: skip


def grown(asked: list[str]) -> LabelsRequested | None:
    """Return the next revision of a request with one cluster, while two topics go on."""
    rng, pool, state = np.random.default_rng(0), picking.fresh(), ProjectState()
    topic = rng.normal(size=DIMENSIONS)
    topic /= np.linalg.norm(topic)
    for n in range(picking.MOST):
        # The other topic is asked about in nearly the same words, so its questions count once.
        point = (topic if n % 2 else -topic) + (0.06 if n % 2 else 0.005) * rng.normal(size=DIMENSIONS)
        name = asked[-1 - n // 2] if n % 2 and n < LATELY else f"new-{n}"
        pool["seen"] += 1
        picking.note(pool, name, picking.encoded(point))
        state.note_place(name, ["completion", 0, n])
    request = LabelsRequested(
        project="desk", request_id="labels-1", alarm_id="alarm-1", dataset_id="ds-1", wanted=20,
        centroid=(), radius=0.0, completion_ids=tuple(asked), prompts=None,
        clusters=(LabelCluster(cluster_id="topic", completion_ids=tuple(asked), size=len(asked)),),
    )  # fmt: skip
    asking = request.model_dump(mode="json")
    alarm = Alarm("alarm-1", "input", "ds-1", "2026-03-02T00:00:00+00:00", 0.2, 1e-3, asked=asking)
    said = more(state, alarm, found(pool))
    return said and LabelsRequested.model_validate(said[0].model_dump())


@pytest.mark.parametrize("before", [185, 190, 195, MOST_SHOWN])
def test_a_request_grows_to_its_end_though_nearly_all_is_about_one_topic(before: int) -> None:
    request = grown([f"old-{n}" for n in range(before)])
    grows = before <= MOST_SHOWN - FEWEST_MORE
    assert (request and len(request.completion_ids)) == (min(before + AT_ONCE, MOST_SHOWN) if grows else None)


def test_erased_prompts_leave_their_cluster_and_make_room_for_others() -> None:
    request = grown([*[ERASED] * 60, *(f"old-{n}" for n in range(140))])
    assert request is not None
    assert len(request.completion_ids) == 140 + AT_ONCE
    assert all(ERASED not in one.completion_ids for one in request.clusters)


def chosen(waiting: int, asked: Sequence[str] = ()) -> int:
    """Return how many prompts are chosen from a pool of so many."""
    rng, pool = np.random.default_rng(3), picking.fresh()
    for n in range(waiting):
        picking.note(pool, f"new-{n}", picking.encoded(rng.normal(size=DIMENSIONS)))
    return len(picked(found(pool), asked).completion_ids)


def test_few_prompts_are_chosen_from_a_small_pool_and_more_from_a_larger_one() -> None:
    assert [chosen(n) for n in (4, 12, 60, 200)] == [4, FEWEST_FIRST, 12, AT_ONCE]
    assert [chosen(n, ["old"]) for n in (4, 60, 200)] == [0, 12, AT_ONCE]
