"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from tunewheel_runtime.metrics import Metrics
from tunewheel_runtime.prometheus import as_text
from tunewheel_runtime.telemetry import make_telemetry


def told(text: str) -> list[str]:
    """Return the lines without what is the same for every service."""
    lines = [line for line in text.splitlines() if "target_info" not in line]
    return [line.replace('{service="x"}', "").replace('service="x",', "") for line in lines]


def test_counters_and_gauges_are_told_with_and_without_a_label() -> None:
    telemetry = make_telemetry("x", None)
    counters = {"jobs.done": "Jobs done", "jobs.failed": "Jobs failed, by reason"}
    metrics = Metrics(telemetry.meter, "x", counters, labels={"jobs.failed": "reason"})
    metrics.gauge("waiting", "Jobs that wait", lambda: 3)
    metrics.gauge("workers", "Workers by place", lambda: {"here": 1, "there": 2}, label="place")
    assert "tunewheel_x_jobs_done_total 0" in told(telemetry.metrics_text()), "from the start"
    metrics.add("jobs.done", 2)
    metrics.add("jobs.failed", of='late "again"\\')
    assert metrics.value("jobs.done") == 2
    assert sorted(told(telemetry.metrics_text())) == sorted(
        [
            "# HELP tunewheel_x_jobs_done_total Jobs done",
            "# TYPE tunewheel_x_jobs_done_total counter",
            "tunewheel_x_jobs_done_total 2",
            "# HELP tunewheel_x_jobs_failed_total Jobs failed, by reason",
            "# TYPE tunewheel_x_jobs_failed_total counter",
            'tunewheel_x_jobs_failed_total{reason="late \\"again\\"\\\\"} 1',
            "# HELP tunewheel_x_waiting Jobs that wait",
            "# TYPE tunewheel_x_waiting gauge",
            "tunewheel_x_waiting 3",
            "# HELP tunewheel_x_workers Workers by place",
            "# TYPE tunewheel_x_workers gauge",
            'tunewheel_x_workers{place="here"} 1',
            'tunewheel_x_workers{place="there"} 2',
        ]
    )


def test_a_series_that_is_gone_is_not_exported() -> None:
    telemetry, found = make_telemetry("x", None), {"here": 1.0}
    Metrics(telemetry.meter, "x", {}).gauge("workers", "Workers by place", lambda: found, label="place")
    assert 'place="here"' in telemetry.metrics_text()
    found.clear()
    assert 'place="here"' not in telemetry.metrics_text()


def test_a_histogram_is_told_as_prometheus_counts_buckets() -> None:
    telemetry = make_telemetry("x", None)
    metrics = Metrics(telemetry.meter, "x", {}, seconds={"call.seconds": "Calls"}, bounds=(0.5, 10))
    for seconds in (0.25, 2.0, 4.0, 60.0):
        metrics.observe("call.seconds", seconds, of="a")
    name = "tunewheel_x_call_seconds"
    assert told(telemetry.metrics_text()) == [
        f"# HELP {name} Calls",
        f"# TYPE {name} histogram",
        f'{name}_bucket{{of="a",le="0.5"}} 1',
        f'{name}_bucket{{of="a",le="10"}} 3',
        f'{name}_bucket{{of="a",le="+Inf"}} 4',
        f'{name}_sum{{of="a"}} 66.25',
        f'{name}_count{{of="a"}} 4',
    ]


def test_nothing_measured_is_an_empty_page() -> None:
    assert as_text(None) == "\n"
