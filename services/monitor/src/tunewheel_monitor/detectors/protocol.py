"""The interface of a detector: its methods, its inputs when a version reaches production, and its findings.

A detector is one file beside this one, and one test. It compares production with its expected behaviour, one
question, answer or rating at a time. Its state is JSON (dicts, lists, strings and numbers) of bounded size,
so that it can be stored in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import DriftCluster, InferenceCompleted
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.coverage import CoverageFacts

State = dict[str, Any]
Measure = Callable[[InferenceCompleted], float | None]
"""Measures a completion whose texts are legible; None: it has nothing to measure. The number stands in
``InferenceScored.measures``; it must not tell anybody's words."""
Action = Literal["collect_labels", "retrain", "update_documents", "investigate"]
Family = Literal["input", "format", "feedback"]
HORIZON = 10
"""In so many windows without a change, all detectors together give a false alarm with a probability of at
most ``drift.p_value``. ``make bench NAME=drift`` measures the actual rate, which is lower."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector's result at the end of a window."""

    detector: str
    statistic_name: str
    statistic: float
    usual: float | None
    """What the statistic is compared with; None: there is no such number."""
    items: int
    """How many items of the window were measured."""
    p_value: float
    """1 / evidence, at most 1. It is valid however often it was checked before."""
    threshold: float
    """The p-value at which the detector raises an alarm: its share of the risk per window."""
    effect: float
    effect_unit: str
    floor: float
    """The least effect that raises an alarm."""
    reference: str
    """The standard of the comparison, in words."""
    action: Action
    completion_ids: tuple[str, ...] = ()
    """The completions that show the drift, most telling first."""
    cluster: DriftCluster | None = None
    asking: State | None = None
    """The pool from which the questions are chosen that people are asked about (``picking.py``). None: those
    of ``completion_ids``."""
    low: float | None = None
    high: float | None = None
    """The interval of a statistic that is an estimate."""

    @property
    def drifted(self) -> bool:
        """Whether the change is sure, and large enough for an alarm."""
        return self.p_value < self.threshold and self.effect >= self.floor


@dataclass(frozen=True, slots=True)
class Opening:
    """The inputs of a detector when a version reaches production."""

    drift: DriftSpec
    dataset_id: str | None = None
    coverage: CoverageFacts | None = None
    """The figures of the dataset's questions. None: the dataset cannot serve as a reference."""
    holdout: tuple[int, int] | None = None
    """(invalid, all) answers in the version's evaluation."""
    calibration: Calibration | None = None
    """How often the version's labels are right, by its confidence in them; None: that was not measured."""
    predecessor: State | None = None
    """The same detector's state at the end of the previous version. None: this is the first version."""
    weights: float = 1.0
    """The sum of the weights of all detectors."""


class Detector(Protocol):
    """Watches one property of production. ``see`` gets every answer of the model in production (routed, not
    pinned, no shadow), including failed ones, and every rating of them. The detector ignores items that it
    does not measure. A detector of a property that ``InferenceScored`` lacks has a ``Measure``, the method
    ``measure``, and reads ``item.measures.get(self.name)``."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> Family:
        """The name by which ``drift.detectors`` switches it on and off, and the value of
        ``DriftDetected.detector``."""
        ...

    @property
    def weight(self) -> float:
        """The detector's share of the false alarms of all detectors, if divided by all detectors' weights.
        So a new detector takes its share from all others alike."""
        ...

    @property
    def floor(self) -> float:
        """The least effect that raises an alarm, unless ``drift.floors`` names another one."""
        ...

    def open(self, opening: Opening) -> State:
        """Return the initial state for a version that reached production."""
        ...

    def see(self, state: State, item: InferenceScored) -> bool | None:
        """Update ``state`` with one item. Return whether the item is bad; None: it was not counted, or the
        detector calls no item bad. This takes microseconds."""
        ...

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        """Return the finding of the window that ends, and prepare ``state`` for the next one. Call it once
        per window. ``floor`` takes the place of the detector's own. None: too few items were measured."""
        ...
