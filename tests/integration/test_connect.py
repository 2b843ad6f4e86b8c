"""docs/connect.md, followed word for word: from an export to a version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/connect.md").read_text(encoding="utf-8")
SPEC, *_ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(COMMANDS,) = re.findall(r"```\n(tunewheel .*?)```", PAGE, re.DOTALL)
PARTS = ("pump", "bell", "lamp", "valve", "gauge", "motor")
FAULTS = ("is silent", "leaks oil", "smells burnt", "blinks red", "stops at noon", "shows a wrong figure")


def ticket(number: int) -> dict[str, Any]:
    part, fault = PARTS[number % 6], FAULTS[number // 6 % 6]
    question, answer = f"Our {part} {fault}.", f"Turn the {part} off, and replace what {fault}."
    said = [{"author_id": 100 + number, "plain_body": question}, {"author_id": 7, "plain_body": answer}]
    return {
        "id": number, "subject": part, "description": question, "status": "solved",
        "requester_id": 100 + number, "assignee_id": 7, "created_at": "2026-02-09T10:20:00Z",
        "comments": [{**one, "public": True} for one in said],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A stranger's folder: an export, and the page's project.yaml."""
    tickets = [*map(ticket, range(36)), ticket(36) | {"status": "open"}]
    (tmp_path / "tickets.json").write_text(json.dumps({"tickets": tickets}))
    (tmp_path / "project.yaml").write_text(SPEC)
    yield tmp_path
    tell("tunewheel down", tmp_path)


def tell(line: str, folder: Path) -> str:
    hidden = ("TUNEWHEEL_",)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "TUNEWHEEL_CONFIG": str(folder / "contexts.yaml"),
    }  # fmt: skip
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.integration
@pytest.mark.nightly("matrices")
def test_the_commands_of_the_page_lead_from_an_export_to_a_version(folder: Path) -> None:
    said = {line.split(" ", 3)[2]: tell(line, folder) for line in COMMANDS.splitlines()}
    assert "36 events, 0 refused, 1 left out" in said["test"]
    assert "36" in said["tickets.json"]
    assert "36" in said["show"]
