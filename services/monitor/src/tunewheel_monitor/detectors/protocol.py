"""A detector: its methods, what is known when a version reaches production, and the finding of a window.

A detector is one file beside this one, and one test: it compares what production does now with what it
should do, one question, answer or rating at a time. Its state is JSON: plain dicts, lists, strings and
numbers, of bounded size, so that whoever folds the project's events can write it down and go on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import DriftCluster
from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.coverage import CoverageFacts

State = dict[str, Any]
Action = Literal["collect_labels", "retrain", "update_documents", "investigate"]
Family = Literal["input", "format", "feedback"]
HORIZON = 10
"""Windows without any change in which all detectors together may give a false alarm with a chance of
``drift.p_value``: a bound. How much less they do give is for ``make bench NAME=drift`` to measure."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector says at the end of a window."""

    detector: str
    drifted: bool
    statistic_name: str
    statistic: float
    p_value: float
    """1 / evidence, at most 1. Valid however often it was looked at before."""
    threshold: float
    """The detector's share of what all of them may risk per window."""
    effect: float
    effect_unit: str
    reference: str
    """What was compared with, in words."""
    action: Action
    completion_ids: tuple[str, ...] = ()
    """That show it, most telling first."""
    cluster: DriftCluster | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when a version reaches production."""

    drift: DriftSpec
    dataset_id: str | None = None
    coverage: CoverageFacts | None = None
    """Of the dataset's questions. None: it cannot serve as a reference."""
    holdout: tuple[int, int] | None = None
    """Answers of the version's evaluation: not valid, all."""
    predecessor: State | None = None
    """The same detector's state at the end of the version before. None: this is the first."""


class Detector(Protocol):
    """``see`` takes an answer of the model in production (routed, not pinned, no shadow), failed ones too,
    or a rating of one; the detector leaves out what it does not measure."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> Family:
        """Switched on and off by ``drift.detectors``; ``DriftDetected.detector``."""
        ...

    @property
    def weight(self) -> float:
        """Share of the false alarms that all detectors together may give; those of ``DETECTORS`` add up to
        1."""
        ...

    def open(self, opening: Opening) -> State:
        """Begin for a version that reached production."""
        ...

    def see(self, state: State, item: InferenceScored) -> None:
        """Take one item in. Changes ``state``; takes microseconds."""
        ...

    def look(self, state: State) -> Finding | None:
        """Close a window: once at the end of each, as it closes the detector's account of it in ``state``.
        None: nothing, or too little, was seen to say anything."""
        ...
