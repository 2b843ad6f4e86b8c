"""Holds the branches that unit tests cover, package by package, to the floors in ``tests/branches.json``.

python scripts/branches.py [--write] [var/nightly/coverage.json] [tests/branches.json]

``--write`` raises the floors to what was measured, and adds those of packages that have none.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

USUAL = [Path("var/nightly/coverage.json"), Path("tests/branches.json")]


def shares(report: dict[str, Any]) -> dict[str, float]:
    """Return the per cent of branches covered, by package, of coverage.py's JSON report."""
    covered, all_ = Counter[str](), Counter[str]()
    for name, file in report["files"].items():
        package = name.partition("/src/")[0]
        covered[package] += file["summary"]["covered_branches"]
        all_[package] += file["summary"]["num_branches"]
    return {name: math.floor(1_000 * covered[name] / all_[name]) / 10 for name in sorted(all_) if all_[name]}


def main(words: list[str]) -> int:
    writes = "--write" in words
    paths = [Path(word) for word in words if word != "--write"]
    report, floors_file = [*paths, *USUAL[len(paths) :]]
    found, floors = shares(json.loads(report.read_text("utf-8"))), json.loads(floors_file.read_text("utf-8"))
    below = [name for name, share in found.items() if share < floors.get(name, 0)]
    for name, share in found.items():
        print(f"{name:24} {share:5.1f} % of branches, at least {floors.get(name, 'no floor yet')}")
    if writes:
        raised = floors | {name: max(share, floors.get(name, 0)) for name, share in found.items()}
        floors_file.write_text(json.dumps(dict(sorted(raised.items())), indent=2) + "\n", "utf-8")
    for name in below:
        print(f"{name}: fewer branches are covered than {floors_file} asks for: test what was added")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
