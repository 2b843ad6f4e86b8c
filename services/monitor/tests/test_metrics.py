from __future__ import annotations

import re

from tunewheel_monitor.metrics import MOST_MEASURED, DetectorGauges, Metrics
from tunewheel_runtime.telemetry import make_telemetry


def test_of_many_detectors_the_evidence_of_those_nearest_to_an_alarm_is_told() -> None:
    telemetry = make_telemetry("monitor", None)
    gauges = DetectorGauges(Metrics(telemetry), lambda project: project != "elsewhere")
    for n in range(MOST_MEASURED + 30):
        gauges.projects[f"desk-{n:03d}"] = [], {"errors": (n + 1) / 1000, "latency": 0.0}
    gauges.projects |= {"elsewhere": (["errors"], {"errors": 1.0}), "quiet": ([], {})}
    text = telemetry.metrics_text()
    told = re.findall(r'monitor_evidence\{service="monitor",project="([^"]+)",detector="errors"', text)
    assert sorted(told) == [f"desk-{n:03d}" for n in range(30, MOST_MEASURED + 30)]
    assert 'detector="latency"' not in text
    gauges.projects.clear()
    assert "tunewheel_monitor_evidence{" not in telemetry.metrics_text()
