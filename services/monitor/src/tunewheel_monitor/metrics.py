"""The metrics of the monitor (``runtime.metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

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
    "looks": "Windows in which a detector had something to measure",
}
LABELS: Mapping[str, str] = {"scores.made": "of", "windows.judged": "of", "looks": "detector"}


class Metrics(metrics.Metrics):
    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(telemetry.meter, "monitor", COUNTERS, labels=LABELS)


MOST_MEASURED = 50
"""The most projects whose figures are told: 750 series of each gauge."""
FIGURES = (
    ("evidence", "Share of the evidence for an alarm that there is, on a logarithmic scale: 1 is enough"),
    ("effect", "How far a detector's figure lies above the usual"),
)


class DetectorGauges:
    """Tells of the projects in memory which detectors have an open alarm, and how near the others are to one.
    ``is_here`` says whether this process folds a project: what it holds of others is out of date."""

    def __init__(self, metrics: Metrics, is_here: Callable[[str], bool]) -> None:
        self._is_here = is_here
        self._alarms: dict[str, Sequence[str]] = {}
        self._figures: dict[str, Mapping[str, tuple[float, float]]] = {}
        metrics.gauge("alarms.open", "Alarms that are open", self._open, label="detector")
        for place, (name, text) in enumerate(FIGURES):
            metrics.gauge(name, text, partial(self._nearest, place), label=("project", "detector"))

    def keep(self, project: str, alarms: Sequence[str], figures: Mapping[str, tuple[float, float]]) -> None:
        """Keep the detectors with an open alarm, and by detector the share of the evidence and the effect."""
        self._alarms[project], self._figures[project] = alarms, figures

    def drop(self, project: str) -> None:
        del self._alarms[project], self._figures[project]

    def clear(self) -> None:
        self._alarms.clear()
        self._figures.clear()

    def _open(self) -> Mapping[str, float]:
        own = [names for project, names in list(self._alarms.items()) if self._is_here(project)]
        return Counter(name for names in own for name in names)

    def _nearest(self, place: int) -> Mapping[tuple[str, str], float]:
        """Return a figure by project and detector, of the projects that are nearest to an alarm."""
        own = {name: found for name, found in list(self._figures.items()) if found and self._is_here(name)}
        nearest = sorted(own, key=lambda name: (-max(own[name].values())[0], name))[:MOST_MEASURED]
        return {(name, detector): told[place] for name in nearest for detector, told in own[name].items()}
