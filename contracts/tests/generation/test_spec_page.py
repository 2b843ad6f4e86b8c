from __future__ import annotations

import re

from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_contracts.generation.spec_page import PATH, spec_files

TEXT = spec_files()[PATH]


def test_fields_show_type_default_and_documentation() -> None:
    assert "| `rank` | integer (> 0, ≤ 512) | `16` |  |" in TEXT
    assert "512 characters) | required | A Hugging Face id or a local path; safetensors only. |" in TEXT
    assert "| `replay` | section | none | See `dataset.replay`. |" in TEXT
    assert (
        '| `entities` | list of `PERSON`, `LOCATION`, `ORGANIZATION`, `NRP` | `["PERSON", "LOCATION"]` |'
        in TEXT
    )
    assert "redact: replace by &lt;EMAIL_ADDRESS>." in TEXT
    assert "``lm_eval.<task>.<metric>``" in TEXT, "code shows what it holds"
    assert not re.search("`[^`]*&lt;[^`]*`[^`]*$", TEXT, re.MULTILINE)
    assert "| `margin` | number (> 0, < 1) | `0.1` |" in TEXT, "each side has one bound"


def test_every_section_that_a_field_points_to_is_there() -> None:
    pointed = set(re.findall(r"See `([^`]+)`\.", TEXT))
    headed = {name.partition(", rule ")[0] for name in re.findall(r"^## (.+)$", TEXT, re.MULTILINE)}
    assert len(pointed) >= 25
    assert pointed == headed


def test_every_kind_of_output_rule_has_a_section() -> None:
    kinds = re.findall(r"^## task\.output_rules\[\], rule (.+)$", TEXT, re.MULTILINE)
    assert kinds == ["sections", "table", "pattern", "allowed_values", "cited"]


def test_every_default_is_one_that_a_spec_has() -> None:
    """The tables are of the schema; what a spec without any section gets is of the models."""
    spec = parse_spec(
        "{project: a, base_model: b, task: {system_prompt: c}, criteria: [{metric: rouge_l, minimum: 0.1}]}"
    )
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (train,) = (section for section in sections if section.startswith("train\n"))
    told = dict(re.findall(r"^\| `(\w+)` \| .*? \| `([^`]+)` \|", train, re.MULTILINE))
    assert len(told) >= 20
    for name, default in told.items():
        assert str(getattr(spec.train, name)).lower() == default.strip('"').lower()
