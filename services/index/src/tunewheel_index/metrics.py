"""What the index counts (``runtime.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping

from tunewheel_runtime import metrics
from tunewheel_runtime.telemetry import Telemetry

COUNTERS: Mapping[str, str] = {
    "versions.named": "Versions that were built and named on the log",
    "builds.failed": "Builds that ended without a version",
    "documents.left_out": "Documents without a passage in versions that were built",
}
LABELS: Mapping[str, str] = {"builds.failed": "reason", "documents.left_out": "reason"}


class Metrics(metrics.Metrics):
    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(telemetry.meter, "index", COUNTERS, labels=LABELS)
