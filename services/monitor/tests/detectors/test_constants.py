"""The page on monitoring has the constants that all detectors share in one table, as the code has them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from tunewheel_contracts.formats.drift_spec import DetectorName
from tunewheel_monitor.detectors import DETECTORS, Detector, evidence, points
from tunewheel_monitor.detectors.novelty import Novelty
from tunewheel_monitor.detectors.rates import Rise
from tunewheel_monitor.detectors.ratings import Votes

PAGE = Path(__file__).parents[4] / "docs/monitoring.md"


def constant(detector: Detector, *names: str) -> Any:
    """Return the first of these constants in the detector's module or in those of its base classes; None:
    there is none."""
    modules = [vars(sys.modules[kind.__module__]) for kind in type(detector).__mro__]
    modules += [vars(points)] if isinstance(detector, Novelty) else []
    return next((module[name] for module in modules for name in names if name in module), None)


def row(detector: Detector) -> str:
    per_user = "one vote a day" if isinstance(detector, Votes) else constant(detector, "PER_USER")
    lately = evidence.LATELY if isinstance(detector, Rise) else constant(detector, "RECENT")
    budget = getattr(detector, "budget", None)
    standard = f"a budget of {budget:g}" if budget else constant(detector, "MEMORY", "STANDARD", "MOST")
    cells = [
        f"`{detector.name}`",
        f"{detector.weight:g}",
        f"{detector.floor:g}",
        per_user or getattr(detector, "per_user", None),
        constant(detector, "HEALTHY") if budget is None else None,
        f"{standard:,.0f}" if isinstance(standard, int | float) else standard,
        f"{lately:,.0f}" if lately else None,
    ]
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_the_table_of_constants_is_that_of_the_code(detector: Detector) -> None:
    assert row(detector) in PAGE.read_text("utf-8").splitlines()


def test_a_spec_may_name_each_detector() -> None:
    assert sorted(get_args(DetectorName)) == sorted(detector.name for detector in DETECTORS)
