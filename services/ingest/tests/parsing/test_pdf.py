from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.formats.pdf import parse_pdf

from .pdfs import MANUAL, Word, encrypted_pdf, make_pdf


def parse(tmp_path: Path, data: bytes) -> ParsedDocument:
    path = tmp_path / "document.pdf"
    path.write_bytes(data)
    return parse_pdf(path)


def test_headings_lists_tables_and_pages_are_kept(tmp_path: Path) -> None:
    parsed = parse(tmp_path, make_pdf(*MANUAL, title="Told"))
    table = "| light | means |\n| --- | --- |\n| red | empty |\n| a\\|b | full |"
    battery = "A battery that stops at 60 % wants one long charge. It is overdischarged otherwise."
    items = "- Plug it in.\n- Wait for a night, or two."
    assert parsed.markdown == (
        f"# Trail 2 Manual\n\n## Battery\n\n{battery}\n\n{items}\n\n{table}\n\n"
        "The rest of the story goes on here.\n\n## Bell\n\nIt rings.\n\n1. One.\n2. Two."
    )
    assert parsed.title == "Trail 2 Manual"
    assert parsed.attributes == {"pages": "3"}
    assert [(s.path, s.kind, s.page, s.text) for s in parsed.sections] == [
        (("Trail 2 Manual", "Battery"), "prose", 1, f"{battery}\n\n{items}"),
        (("Trail 2 Manual", "Battery"), "table", 1, table),
        (("Trail 2 Manual", "Battery"), "prose", 1, "The rest of the story goes on here."),
        (("Trail 2 Manual", "Bell"), "prose", 2, "It rings.\n\n1. One.\n2. Two."),
    ]


def test_a_font_of_one_width_is_code_with_its_indentation_and_blank_lines(tmp_path: Path) -> None:
    code = [("def charge(bike):", 60), ("return bike.plug()", 84)]
    page = [
        Word("Call it like this:", 100),
        *(Word(text, 130 + 12 * n, left=left, font="F2") for n, (text, left) in enumerate(code)),
        Word("charge(mine)", 166, font="F2"),
        Word("It charges, as long as the bike is one of", 210),
        Word("/var/lib/bikes/", 222, font="F2"),
        Word("and plugged in.", 234),
    ]
    parsed = parse(tmp_path, make_pdf(page))
    assert [(s.kind, s.text) for s in parsed.sections] == [
        ("prose", "Call it like this:"),
        ("code", "def charge(bike):\n    return bike.plug()\n\ncharge(mine)"),
        ("prose", "It charges, as long as the bike is one of /var/lib/bikes/ and plugged in."),
    ]
    assert "```\ndef charge(bike):\n" in parsed.markdown


LEFT = [
    "The battery of the bike takes one night of",
    "charging. It is empty when the red light",
    "is on, and",
]
RIGHT = [
    "full when it is off. The bell takes no power,",
    "and rings whenever it is struck. Oil it once",
    "a year.",
]


def columns(left: list[str], right: list[str], top: int = 140) -> list[Word]:
    words = []
    for number, (one, two) in enumerate(zip(left, right, strict=True)):
        words += [Word(one, top + 12 * number, left=60), Word(two, top + 12 * number, left=310)]
    return words


def test_two_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    across = "This line runs across the whole width of the page, above and between the columns, as titles do."
    page = [Word(across, 100), *columns(LEFT[:2] * 4, RIGHT[:2] * 4)]
    text = parse(tmp_path, make_pdf(page)).markdown
    assert text.startswith(across)
    assert text.count(" ".join(LEFT[:2])) == 4
    assert text.count(" ".join(RIGHT[:2])) == 4
    assert text.index(RIGHT[0]) > text.rindex(LEFT[1])


def test_a_sentence_goes_on_in_the_next_column_and_what_runs_across_divides_them(tmp_path: Path) -> None:
    across = "Here a line of text runs across the width of the page and divides what is above from below."
    page = [
        *columns(LEFT[:2] * 2 + LEFT, [*RIGHT, *RIGHT[:2], *RIGHT[:2]]),
        Word(across, 260),
        *columns(
            ["Below the line, on the left side of the page."] * 2, ["Below it, on the right side."] * 2, 300
        ),
    ]
    text = parse(tmp_path, make_pdf(page)).markdown
    assert "the red light is on, and full when it is off." in text
    assert text.index(RIGHT[1]) < text.index(across) < text.index("Below the line") < text.index("Below it")


def test_names_and_values_are_read_across(tmp_path: Path) -> None:
    """The left side ends anywhere: it is a list, not a column."""
    names = ["light", "bell", "horn", "lock", "pump", "chain", "saddle", "wheel", "spoke", "brake"]
    values = [f"costs {number} a piece, without the tax on it" for number in range(10)]
    text = parse(tmp_path, make_pdf(columns(names, values))).markdown
    assert "light costs 0 a piece" in text
    assert "brake costs 9 a piece" in text


def test_the_words_of_tightly_set_text_stay_apart(tmp_path: Path) -> None:
    """Each word stands by itself, 2 points after the one before: less than pdfplumber takes for a space."""
    page = [Word("Wait", 100, left=60), Word("a", 100, left=82), Word("night", 100, left=90)]
    assert parse(tmp_path, make_pdf(page)).markdown == "Wait a night"


def test_contents_page_numbers_and_running_titles_go(tmp_path: Path) -> None:
    pages = [
        [
            Word(f"Chapter {n // 2}: {'Bells' if n < 2 else 'Horns'} {n + 7}", 30, 8),
            Word(f"Text {'abc'[n % 3]} of the page.", 200),
            Word("iv", 780, 8),
        ]
        for n in range(4)
    ]
    pages[0].insert(1, Word("2.1 Bells . . . . . . . . 7", 120))
    pages[0].insert(1, Word("Dots... are no leader", 100))
    parsed = parse(tmp_path, make_pdf(*pages))
    text = "Text a of the page.\n\nText b of the page.\n\nText c of the page.\n\nText a of the page."
    assert parsed.markdown == f"Dots... are no leader\n\n{text}"


def test_without_a_heading_the_metadata_tells_the_title(tmp_path: Path) -> None:
    assert parse(tmp_path, make_pdf([Word("Only text.", 100)], title="Told")).title == "Told"


def test_text_that_repeats_away_from_the_edge_is_kept(tmp_path: Path) -> None:
    pages = [[Word("Warning!", 300), Word(f"text {n} {'x' * n}", 330)] for n in range(4)]
    assert parse(tmp_path, make_pdf(*pages)).markdown.count("Warning!") == 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no PDF"),
        (b"<html>", "is no PDF"),
        (b"%PDF-1.7\ngarbage", "is no readable PDF"),
        (make_pdf([], []), "holds no text on its 2 pages; if it is a scan"),
        (encrypted_pdf(), "is encrypted; publish it decrypted"),
    ],
    ids=["empty", "html", "garbage", "scan", "encrypted"],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(words)):
        parse(tmp_path, data)


def test_a_pdf_without_its_table_of_objects_is_read_all_the_same(tmp_path: Path) -> None:
    whole = make_pdf([Word("It rings.", 100)])
    cut = whole[: whole.index(b"xref")] + b"trailer\n<< /Root 1 0 R >>\n"
    assert parse(tmp_path, cut).markdown == "It rings."


def test_an_unreadable_font_is_no_text(tmp_path: Path) -> None:
    """Glyphs without characters come out as (cid:N)."""
    cids = "(cid:12)" * 20
    with pytest.raises(Unreadable, match="do not say which characters"):
        parse(tmp_path, make_pdf([Word(cids, 100, 4)]))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_pdf_is_read_or_refused_never_worse(data: st.DataObject) -> None:
    whole = bytearray(make_pdf(*MANUAL[:1]))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(whole)
        file.flush()
        with contextlib.suppress(Unreadable):
            assert parse_pdf(Path(file.name)).sections
