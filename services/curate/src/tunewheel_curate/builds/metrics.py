"""The metrics of builds (``runtime.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from tunewheel_runtime import metrics

COUNTERS: Mapping[str, str] = {
    "builds.failed": "Builds that died, took too long, or whose source was away",
}
SECONDS: Mapping[str, str] = {"build.seconds": "Builds of dataset versions, by outcome"}


class Metrics(metrics.Metrics):
    def __init__(self, meter: Meter) -> None:
        super().__init__(meter, "curate", COUNTERS, seconds=SECONDS)
