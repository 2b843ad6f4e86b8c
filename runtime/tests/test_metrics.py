"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from tunewheel_runtime.metrics import Metrics
from tunewheel_runtime.telemetry import make_telemetry


def test_counters_and_gauges_are_told_with_and_without_a_label() -> None:
    counters = {"jobs.done": "Jobs done", "jobs.failed": "Jobs failed, by reason"}
    metrics = Metrics(make_telemetry("x", None).meter, "x", counters, labels={"jobs.failed": "reason"})
    metrics.gauge("waiting", "Jobs that wait", lambda: 3)
    metrics.gauge("workers", "Workers by place", lambda: {"here": 1, "there": 2}, label="place")
    assert "tunewheel_x_jobs_done_total 0" in metrics.render()
    metrics.add("jobs.done", 2)
    metrics.add("jobs.failed", of="late")
    assert (metrics.value("jobs.done"), metrics.value("jobs.failed", of="late")) == (2, 1)
    assert (
        metrics.render()
        == """\
# HELP tunewheel_x_jobs_done_total Jobs done
# TYPE tunewheel_x_jobs_done_total counter
tunewheel_x_jobs_done_total 2
# HELP tunewheel_x_jobs_failed_total Jobs failed, by reason
# TYPE tunewheel_x_jobs_failed_total counter
tunewheel_x_jobs_failed_total{reason="late"} 1
# HELP tunewheel_x_waiting Jobs that wait
# TYPE tunewheel_x_waiting gauge
tunewheel_x_waiting 3
# HELP tunewheel_x_workers Workers by place
# TYPE tunewheel_x_workers gauge
tunewheel_x_workers{place="here"} 1
tunewheel_x_workers{place="there"} 2
"""
    )
