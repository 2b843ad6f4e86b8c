"""The metrics of the monitor (``runtime.metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest

from tunewheel_runtime import metrics
from tunewheel_runtime.telemetry import Telemetry

COUNTERS: Mapping[str, str] = {
    "scores.made": "Completions and ratings scored",
    "scores.folded": "Scores taken into the state of their project",
    "checkpoints.unreadable": "Checkpoints that could not be read: the project went on with an older state",
    "references.missed": "Datasets whose reference was not in memory when scores needed it",
    "references.fitted": "References that were fitted: more than datasets in production if memory is short",
    "references.encoded": "References that the sentence encoder may judge by",
    "windows.judged": "Windows of answers, and of ratings, that were full",
    "doubts.not_asked": "Withheld questions for whose label nobody was asked: again, or too many a day",
    "looks": "Windows in which a detector had something to measure",
}
LABELS: Mapping[str, str] = {"scores.made": "of", "windows.judged": "of", "looks": "detector"}


class Metrics(metrics.Metrics):
    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(telemetry.meter, "monitor", COUNTERS, labels=LABELS)


MOST_MEASURED = 500
"""The most series of ``evidence``, of a project and a detector each."""


class DetectorGauges:
    """Tells of the projects in memory which detectors have an open alarm, and how near the others are to one.
    ``is_here`` says whether this process folds a project: what it holds of others is out of date."""

    def __init__(self, metrics: Metrics, is_here: Callable[[str], bool]) -> None:
        self._is_here = is_here
        self.projects: dict[str, tuple[Sequence[str], Mapping[str, float]]] = {}
        """By project, the detectors with an open alarm, and by detector the share of the evidence."""
        told = "Share of the evidence for an alarm that there is, on a logarithmic scale: 1 is enough"
        metrics.gauge("alarms.open", "Alarms that are open", self._open, label="detector")
        metrics.gauge("evidence", told, self._evidence, label=("project", "detector"))

    def _open(self) -> Mapping[str, float]:
        here = [alarms for name, (alarms, _) in list(self.projects.items()) if self._is_here(name)]
        return Counter(name for alarms in here for name in alarms)

    def _evidence(self) -> Mapping[tuple[str, str], float]:
        here = {name: found for name, (_, found) in list(self.projects.items()) if self._is_here(name)}
        every = {(name, detector): share for name, found in here.items() for detector, share in found.items()}
        return dict(nlargest(MOST_MEASURED, every.items(), key=lambda one: one[1]))
