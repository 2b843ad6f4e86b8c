from __future__ import annotations

import numpy as np
from tunewheel_contracts.events.production import DriftCluster, DriftDetected, DriftWindow
from tunewheel_monitor.scoring import near

from .conftest import START


def alarm(name: str, *centroid: float, radius: float = 0.1) -> DriftDetected:
    window = DriftWindow(
        first_completion_id="a", last_completion_id="b", completions=1, started_at=START, ended_at=START
    )
    cluster = DriftCluster(prompts=1, share=0.1, centroid=centroid, radius=radius)
    return DriftDetected(
        project="desk", detector="input", statistic_name="s", statistic=1, p_value=0.1, threshold=0.1,
        dataset_id="ds-1", model_id="desk-1", window=window, alarm_id=name, cluster=cluster,
    )  # fmt: skip


def test_a_question_is_near_the_clusters_within_whose_radius_it_lies() -> None:
    alarms = [
        alarm("a", 0.5, 0.0),
        alarm("b", 0.0, 1.0, radius=0.3),
        alarm("c", 1.0, 1.0, radius=0.3),
        alarm("d", 1.0),
    ]
    units = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert near(units, alarms) == [("a", "c"), ("b", "c"), ()]
    assert near(units, []) == [(), (), ()]
    assert near(units[:0], alarms) == []
