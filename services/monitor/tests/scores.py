"""Scored events as they come, without embedding anything: what the fold is fed with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from tunewheel_contracts.events.monitoring import InferenceScored, LogPosition
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.coverage import CoverageFacts
from tunewheel_monitor.detectors.picking import encoded
from tunewheel_monitor.fold import Facts
from tunewheel_monitor.knowledge import Production

from .conftest import START, spec_of

COVERAGE = CoverageFacts(
    texts=1_000,
    novel_rate=0.05,
    levels=(0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    cell_shares=(0.5, 0.5),
    cell_points=(185.0, 185.0),
    cell_counts=(500, 500),
    mean_points=0.37,
    spread=2.6,
    pairs=0.05,
    join_radius=0.4,
)


def facts(**changes: Any) -> Facts:
    """Return what is known of ``desk``, whose windows are of 20, with ``desk-1`` in production."""
    values: dict[str, Any] = {
        "spec": spec_of(),
        "production": Production("desk-1", "ds-1", 7),
        "coverage": COVERAGE,
        "holdout": (1, 200),
    }
    return Facts(**(values | changes))


def answer(number: int, **changes: Any) -> InferenceScored:
    """Return the ``number``-th answer of ``desk-1``: a known question, a valid answer."""
    values: dict[str, Any] = {
        "project": "desk",
        "completion_id": f"c-{number:05d}",
        "scored": f"event-{number:05d}",
        "position": LogPosition(partition=number % 3, offset=number),
        "model_id": "desk-1",
        "role": RouteRole.PRODUCTION,
        "at": START + timedelta(seconds=number),
        "latency_seconds": 0.5,
        "completion_tokens": 20,
        "format_valid": True,
        "repetition": 0.0,
        "dataset_id": "ds-1",
        "cell": number % 2,
        "novelty": 0.05,
        "novel": False,
    }
    return InferenceScored(**(values | changes))


def novel(number: int, *, about: int = 7, **changes: Any) -> InferenceScored:
    """Return the ``number``-th question about a topic that the dataset does not know, in words of its own."""
    words = 0.02 * np.random.default_rng(number).standard_normal(384)
    return answer(number, novelty=0.9, novel=True, vector=encoded(np.eye(384)[about] + words), **changes)


def rating(number: int, thumb: str, **changes: Any) -> InferenceScored:
    values: dict[str, Any] = {
        "project": "desk",
        "completion_id": f"c-{number:05d}",
        "scored": f"rating-{number:05d}",
        "of": "rating",
        "model_id": "desk-1",
        "role": RouteRole.PRODUCTION,
        "at": START + timedelta(seconds=number),
        "rating": thumb,
        "corrected": False,
    }
    return InferenceScored(**(values | changes))
