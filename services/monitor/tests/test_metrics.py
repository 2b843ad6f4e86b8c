from __future__ import annotations

import re

from tunewheel_monitor.metrics import MOST_MEASURED, DetectorGauges, Metrics
from tunewheel_runtime.telemetry import make_telemetry


def test_of_many_projects_the_figures_of_those_nearest_to_an_alarm_are_told() -> None:
    telemetry = make_telemetry("monitor", None)
    gauges = DetectorGauges(Metrics(telemetry), lambda project: project != "elsewhere")
    for n in range(MOST_MEASURED + 30):
        gauges.keep(f"desk-{n:03d}", [], {"errors": (n / 100, 0.5), "latency": (0.0, -0.1)})
    gauges.keep("elsewhere", ["errors"], {"errors": (1.0, 1.0)})
    gauges.keep("quiet", [], {})
    text = telemetry.metrics_text()
    told = re.findall(r'monitor_evidence\{service="monitor",project="([^"]+)",detector="errors"', text)
    assert sorted(told) == [f"desk-{n:03d}" for n in range(30, MOST_MEASURED + 30)]
    assert text.count("tunewheel_monitor_effect{") == 2 * MOST_MEASURED
    gauges.clear()
    assert "tunewheel_monitor_evidence{" not in telemetry.metrics_text()
