"""The README's table of failures names every field that a run can fail by."""

from __future__ import annotations

import re
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[1]
README = (TRAIN / "README.md").read_text("utf-8")


def test_every_field_of_a_failure_is_in_the_readme() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (TRAIN / "src").rglob("*.py"))
    fields = set(re.findall(r"RunFailed\(\s*field=\"([^\"]+)\"", source))
    fields |= set(re.findall(r"\bfield=\"(dataset\.[a-z]+|train\.[a-z_.]+)\"", source))
    fields |= set(re.findall(r"^FIELD = \"([^\"]+)\"", source, re.MULTILINE))
    assert len(fields) >= 12
    table = README.split("## Failures", 1)[1].split("\n## ", 1)[0]
    assert {field for field in fields if f"`{field}`" not in table} == set()
