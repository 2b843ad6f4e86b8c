"""What the guide to one's own project shows is what the spec's models take, and say."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.spec import parse_spec

from .snippets import merged

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/bring-your-own-project.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
QUICK, SPEC, *_ = (textwrap.dedent(text) for text in SHOWN)


def complaint(**changed: Any) -> str:
    """Return what is said of the guide's spec where ``changed`` sections are None (left out) or otherwise."""
    spec = {name: value for name, value in (yaml.safe_load(SPEC) | changed).items() if value is not None}
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(yaml.safe_dump(spec))
    return str(caught.value)


def test_the_whole_spec_is_one() -> None:
    assert parse_spec(SPEC).project == "returns-desk"


def test_ones_own_questions_take_ten_lines_and_six_commands() -> None:
    spec = parse_spec(QUICK)
    assert len(QUICK.splitlines()) == 10
    commands = GUIDE.partition(QUICK)[2].split("```")[2].strip().splitlines()
    assert len(commands) == 6
    assert all(f"--project {spec.project}" in command for command in commands[3:])


def test_sources_of_general_data_within_a_sentence_are_ones() -> None:
    inline = re.findall(r"`(\{source: .*?\})`", GUIDE)
    assert inline
    for shown in inline:
        spec = merged(yaml.safe_load(SPEC), {"dataset": {"replay": yaml.safe_load(shown)}})
        assert parse_spec(yaml.safe_dump(spec)).dataset.replay is not None


def test_complaints_are_quoted_as_they_are_said() -> None:
    contradiction = [{"metric": "valid_output", "minimum": 0.9, "maximum": 0.5}]
    for said in (complaint(criteria=None), complaint(criteria=contradiction)):
        assert f"\n{said}\n" in GUIDE
