"""Writes what the nightly part ``faults`` found into ``docs/reliability.md``.

``PYTHONPATH=testing python -m tests.chaos.fault_table --service ingest --fault SIGSTOP`` runs one cell first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FAULTS = (
    "kill -9", "broker away", "network cut", "store away", "disk full", "SIGSTOP", "slow store",
    "clock steps", "leader change",
)  # fmt: skip
SERVICES = ("ingest", "curate", "train", "eval", "registry", "serve-gateway", "monitor", "index")
RESULTS = Path("var/nightly/faults.json")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MARKS = "<!-- faults: generated -->", "<!-- faults: end -->"
NOT_RUN = "not run"
WORDS = {
    "groups": "{} groups",
    "deaths": "{} deaths",
    "steps": "{} steps",
    "slowed": "{} slow calls",
    "moved": "{} partitions got another leader",
    "stopped_seconds": "stopped for {} s",
    "whole_again_after_seconds": "whole again {} s later",
    "slowest_health_seconds": "health answered within {} s",
    "ended_itself": "the process ended and was started again",
    "events": "{} events",
    "more": "{} more than without the fault",
    "repeated": "{} delivered again",
    "files": "{} files",
}
"""The figures of a cell, in words; a figure that is False or 0 is left out."""


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]], before: str = "") -> str:
    """Return the matrix as Markdown: a line for each service and fault. A cell without a result stays as the
    table ``before`` has it."""
    kept = {tuple(line.split(" | ")[:2]): line for line in before.splitlines()}
    lines = ["| service | fault | result | figures |", "|---|---|---|---|"]
    for service in SERVICES:
        for fault in FAULTS:
            cell = results.get(fault, {}).get(service, {})
            if not cell and (old := kept.get((f"| {service}", fault))):
                lines.append(old)
                continue
            figures = [text.format(cell[name]) for name, text in WORDS.items() if cell.get(name)]
            line = (service, fault, cell.get("result", NOT_RUN), ", ".join(figures))
            lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def write() -> None:
    """Write the figures that are there into the page, between its marks."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    found, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table(results, found)}\n{MARKS[1]}{after}", "utf-8")


def run(services: Sequence[str], faults: Sequence[str]) -> list[str]:
    """Do one fault after the other to all ``services``, and go on where a cell fails. The figures of a fault
    are in the page when its cells have ended. Return the cells that failed."""
    from .faults import run, undisturbed

    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        calm = undisturbed(services, Path(name) / "calm")
        for fault in faults:
            found = run(fault, services, Path(name) / fault.replace(" ", "-"), calm)
            failed += [f"{one} x {fault}" for one, of in found.items() if isinstance(of, BaseException)]
            write()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--service", action="append", choices=SERVICES)
    parser.add_argument("--fault", action="append", choices=FAULTS)
    options = parser.parse_args()
    failed: list[str] = []
    if options.service or options.fault:
        failed = run(options.service or SERVICES, options.fault or FAULTS)
    write()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
