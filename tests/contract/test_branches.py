"""What ``make coverage`` says of a report of coverage.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "branches.py"


def held(folder: Path, floors: dict[str, float], *words: str) -> tuple[int, dict[str, float]]:
    """Return the exit code for a report of two packages, 75 % and 66.6 %, and the floors after it."""
    counts = {"planner/src/a.py": (3, 4), "services/eval/src/a.py": (0, 1), "services/eval/src/b.py": (2, 2)}
    files = {
        name: {"summary": {"covered_branches": covered, "num_branches": branches}}
        for name, (covered, branches) in counts.items()
    }
    (report := folder / "coverage.json").write_text(json.dumps({"files": files}))
    (kept := folder / "branches.json").write_text(json.dumps(floors))
    done = subprocess.run([sys.executable, str(SCRIPT), *words, str(report), str(kept)], check=False)
    return done.returncode, json.loads(kept.read_text())


@pytest.mark.parametrize(
    ("floors", "code"),
    [
        ({}, 0),
        ({"planner": 75.0, "services/eval": 66.6}, 0),
        ({"services/eval": 66.7}, 1),
        ({"planner": 80}, 1),
    ],
)
def test_a_package_below_its_floor_fails(tmp_path: Path, floors: dict[str, float], code: int) -> None:
    assert held(tmp_path, floors) == (code, floors)


def test_floors_are_added_and_raised_and_never_lowered(tmp_path: Path) -> None:
    assert held(tmp_path, {"planner": 80.0}, "--write") == (1, {"planner": 80.0, "services/eval": 66.6})
