"""Finds the alarms whose cluster contains a question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_embedding.static import Vectors, unit_length

MOST = 16
"""The most alarms that a question is assigned to; the newest count."""


def near(units: Vectors, alarms: Sequence[DriftDetected | AlarmOpened]) -> list[tuple[str, ...]]:
    """Return, for each row of ``units`` (texts, dimensions), the names of the alarms whose cluster contains
    it. Rows are unit vectors in the space of the centroids. A row of zeros is in no cluster."""
    known = [
        (alarm.alarm_id, alarm.cluster)
        for alarm in alarms[-MOST:]
        if alarm.alarm_id and alarm.cluster is not None and len(alarm.cluster.centroid) == units.shape[1]
    ]
    if not known:
        return [()] * len(units)
    centroids = unit_length(np.array([cluster.centroid for _, cluster in known]))
    inside = 1.0 - units @ centroids.T <= np.array([cluster.radius for _, cluster in known])
    inside &= np.linalg.norm(units, axis=1, keepdims=True) > 0
    return [tuple(name for (name, _), yes in zip(known, row, strict=True) if yes) for row in inside]
