"""How often a model's labels are right, by its own probability of them: the standard by which the monitor
estimates production's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.formats.confidence import CalibrationBin

MOST_BINS = 20
ROWS = 10
"""The least rows of a bin, unless there are fewer rows in all."""


def calibration(
    probabilities: Sequence[float | None], right: npt.NDArray[np.floating[Any]]
) -> tuple[CalibrationBin, ...]:
    """Return bins of about equally many rows, least confident first. ``right``: 1 for each row whose label is
    right. Rows without a probability are left out: an earlier release measured them."""
    measured = [(sure, hit) for sure, hit in zip(probabilities, right, strict=True) if sure is not None]
    if not measured:
        return ()
    ordered = np.array(sorted(measured))
    bins = np.array_split(ordered, min(MOST_BINS, max(1, len(ordered) // ROWS)))
    return tuple(
        CalibrationBin(
            confidence=round(float(rows[:, 0].mean()), 6), rows=len(rows), right=int(rows[:, 1].sum())
        )
        for rows in bins
    )
