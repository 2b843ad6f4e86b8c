from __future__ import annotations

from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.generation.catalogue import PATH, catalogue_files
from tunewheel_contracts.topics import TOPICS


def test_the_catalogue_has_a_row_and_a_section_for_every_topic_and_format() -> None:
    text = catalogue_files()[PATH]
    for spec in TOPICS:
        assert f"| [`{spec.name}`](#" in text
        assert f"\n### {spec.name}\n" in text
    for name in FORMATS:
        assert f"\n### {name}\n" in text


def test_fields_show_type_need_and_documentation() -> None:
    lines = catalogue_files()[PATH].splitlines()
    assert "| `action` | `pause`, `resume`, `cancel` | required |  |" in lines
    assert any(line.startswith("| `request` | string (1+ characters") for line in lines)
    assert any("| required | Id of the event that decided the step. |" in line for line in lines)


def test_every_table_row_has_as_many_cells_as_its_table() -> None:
    rows = [line for line in catalogue_files()[PATH].splitlines() if line.startswith("|")]
    assert len(rows) > 200
    assert {line.replace("\\|", "").count("|") for line in rows} == {5, 7}
