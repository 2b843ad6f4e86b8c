"""The detectors, one file each. ``protocol.py`` defines the interface. A new detector is a file, a test and a
line here."""

from __future__ import annotations

from tunewheel_monitor.detectors.agreement import Agreement
from tunewheel_monitor.detectors.clusters import Clusters
from tunewheel_monitor.detectors.corrections import Corrections
from tunewheel_monitor.detectors.documents import Documents
from tunewheel_monitor.detectors.errors import Errors
from tunewheel_monitor.detectors.feedback import Feedback
from tunewheel_monitor.detectors.formats import Format
from tunewheel_monitor.detectors.invented import Invented
from tunewheel_monitor.detectors.labels import Labels
from tunewheel_monitor.detectors.latency import Latency
from tunewheel_monitor.detectors.length import Length
from tunewheel_monitor.detectors.mixture import Mixture
from tunewheel_monitor.detectors.novelty import Novelty
from tunewheel_monitor.detectors.protocol import HORIZON, Action, Detector, Family, Finding, Opening, State
from tunewheel_monitor.detectors.refusals import Refusals
from tunewheel_monitor.detectors.repetition import Repetition

DETECTORS: tuple[Detector, ...] = (
    Novelty(),
    Clusters(),
    Mixture(),
    Documents(),
    Format(),
    Labels(),
    Length(),
    Refusals(),
    Repetition(),
    Invented(),
    Feedback(),
    Corrections(),
    Agreement(),
    Latency(),
    Errors(),
)

__all__ = ["DETECTORS", "HORIZON", "Action", "Detector", "Family", "Finding", "Opening", "State"]
