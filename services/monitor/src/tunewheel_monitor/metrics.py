"""The metrics of the monitor (``runtime.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping

from tunewheel_runtime import metrics
from tunewheel_runtime.telemetry import Telemetry

COUNTERS: Mapping[str, str] = {
    "scores.made": "Completions and ratings scored",
    "scores.folded": "Scores taken into the state of their project",
    "checkpoints.unreadable": "Checkpoints that could not be read: the project went on with an older state",
    "references.missed": "Datasets whose reference was not in memory when scores needed it",
    "references.fitted": "References that were fitted: more than datasets in production if memory is short",
    "windows.judged": "Windows of answers, and of ratings, that were full",
    "looks": "Windows in which a detector had something to measure",
}
LABELS: Mapping[str, str] = {"scores.made": "of", "windows.judged": "of", "looks": "detector"}


class Metrics(metrics.Metrics):
    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(telemetry.meter, "monitor", COUNTERS, labels=LABELS)
