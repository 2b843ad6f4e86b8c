"""The reference of docs/api.md is what the console says of its API."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/api_reference.py"
_spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
api_reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_reference)


def test_the_reference_is_fresh_and_every_route_says_what_it_does() -> None:
    page = api_reference.PAGE.read_text("utf-8")
    assert api_reference.drawn(page) == page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
