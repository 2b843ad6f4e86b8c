"""The detectors. ``protocol.py`` defines the interface. A new detector is a class, a test and a line here."""

from __future__ import annotations

from tunewheel_monitor.detectors.clusters import Clusters
from tunewheel_monitor.detectors.documents import Documents
from tunewheel_monitor.detectors.latency import Latency
from tunewheel_monitor.detectors.novelty import Novelty
from tunewheel_monitor.detectors.protocol import HORIZON, Action, Detector, Family, Finding, Opening, State
from tunewheel_monitor.detectors.rates import Errors, Format, Invented, Refusals, Repetition
from tunewheel_monitor.detectors.ratings import Agreement, Corrections, Feedback
from tunewheel_monitor.detectors.shares import Labels, Length, Mixture

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
