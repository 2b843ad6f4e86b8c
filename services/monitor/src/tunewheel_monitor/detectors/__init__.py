"""The detectors, one file each. ``protocol.py`` defines the interface. A new detector is a file and a test,
also if it watches a new property."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterable

from tunewheel_monitor.detectors import protocol
from tunewheel_monitor.detectors.protocol import HORIZON, Action, Detector, Family, Finding, Opening, State


def find_detectors() -> tuple[Detector, ...]:
    """Return a detector of each class in this folder that has a name and a weight, the heaviest first."""
    modules = [importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__)]
    classes = [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]
    found: list[Detector] = [
        kind() for kind in classes if isinstance(getattr(kind, "name", None), str) and hasattr(kind, "weight")
    ]
    return tuple(sorted(found, key=lambda detector: (-detector.weight, detector.name)))


def measures_of(detectors: Iterable[Detector]) -> dict[str, protocol.Measure]:
    """Return the detectors' own measures, by their names."""
    return {one.name: measure for one in detectors if (measure := getattr(one, "measure", None)) is not None}


DETECTORS = find_detectors()
MEASURES = measures_of(DETECTORS)
WEIGHTS = math.fsum(detector.weight for detector in DETECTORS)
"""The sum of the weights of all detectors."""

__all__ = ["DETECTORS", "HORIZON", "WEIGHTS", "Action", "Detector", "Family", "Finding", "Opening", "State"]
