from __future__ import annotations

from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_retrieval.sections import Section, joined, markdown_of, on_one_line, repaired


def section(*path: str, record_id: str = "r", name: str | None = None) -> Section:
    return Section(record_id, "g", "Handbook", path, (DocumentSection(text="x", name=name),))


def test_a_heading_that_repeats_the_title_is_left_out() -> None:
    assert section("Handbook", "Reset").heading == "Reset"
    assert section("Reset").heading == "Reset"


def test_code_cannot_close_its_fence() -> None:
    piece = DocumentSection(text="```\ninner\n```", kind="code", language="markdown")
    assert markdown_of(piece) == "````markdown\n```\ninner\n```\n````"


def test_neighbours_below_one_heading_are_one_section_and_named_code_stays_alone() -> None:
    pieces = [section("A"), section("A"), section("A", name="f"), section("A"), section("B")]
    assert [len(one.pieces) for one in joined(pieces)] == [2, 1, 1, 1]
    assert len(joined([section("A"), section("A", record_id="other")])) == 2


def test_repair_keeps_what_white_space_means() -> None:
    assert repaired("caf\u0065\u0301  \n\n\n\n- a\n  - b", verbatim=False) == "café\n\n- a\n  - b"
    assert repaired("\n  x\n\n\n\ny\n", verbatim=True) == "  x\n\n\n\ny"
    assert on_one_line(" A \n title ") == "A title"
