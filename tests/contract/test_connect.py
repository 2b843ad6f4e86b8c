"""What docs/connect.md shows is what the code takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import yaml
from tunewheel_cli.frame import app
from tunewheel_contracts.formats.source_spec import BuiltIn, SourceSpec
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/connect.md").read_text(encoding="utf-8")
SPEC, *FRAGMENTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
EXPORT = ROOT / "contracts/tests/sources/payloads/zendesk_export.json"


def test_the_first_command_of_the_page_shows_what_its_spec_makes_of_an_export(tmp_path: Path) -> None:
    spec = tmp_path / "project.yaml"
    spec.write_text(SPEC)
    words = ["source", "test", str(EXPORT), "--source", "zendesk", "--spec", str(spec), "--json"]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    assert told["counts"] == {"event": 1, "refused": 0, "left out": 1}
    assert told["records"][0]["fields"]["attributes"]["team"] == "north"


def test_every_fragment_of_the_page_is_a_source() -> None:
    found = [yaml.safe_load(fragment) for fragment in FRAGMENTS]
    sources = [SourceSpec.model_validate(one) for shown in found for one in shown.get("sources", ())]
    assert {source.name for source in sources} == {"zendesk", "crm"}


def test_the_table_of_mappings_names_all() -> None:
    assert all(f"| `{name}` |" in PAGE for name in get_args(BuiltIn))
