from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.parsing.document import Unreadable
from tunewheel_ingest.parsing.formats.html import LONGEST_REPEATED, MOST_SPANNED, parse_html


def rows_of(page: str) -> list[str]:
    return parse_html(page).markdown.split("\n")


def test_a_cell_that_reaches_into_other_rows_is_said_in_each() -> None:
    page = """<table>
    <tr><th rowspan=2>Region</th><th colspan=2>Sales</th></tr>
    <tr><th>Q1</th><th>Q2</th></tr>
    <tr><td rowspan=9>EU</td><td>1</td><td rowspan=2>both</td></tr>
    <tr><td>3</td></tr>
    <tr><td>5</td><td>6</td></tr></table>"""
    assert rows_of(page) == [
        "| Region | Sales | |",
        "| --- | --- | --- |",
        "| Region | Q1 | Q2 |",
        "| EU | 1 | both |",
        "| EU | 3 | both |",
        "| EU | 5 | 6 |",
    ]


def test_a_long_one_is_said_once_and_leaves_its_place() -> None:
    long = "x" * (LONGEST_REPEATED + 1)
    page = f"<table><tr><td rowspan=2>{long}<td>1</tr><tr><td>2</tr></table>"
    assert rows_of(page)[2:] == ["|  | 2 |"]


def test_bars_in_cells_part_no_cells() -> None:
    page = "<table><tr><th>command</th></tr><tr><td><code>a | b</code></td></tr></table>"
    assert rows_of(page)[2] == "| `a \\| b` |"


def test_a_table_around_tables_only_lays_them_out() -> None:
    inner = "<table><tr><th>light</th></tr><tr><td>red</td></tr></table>"
    page = f"<table><tr><td><h1>Guide</h1></td><td>{inner}</td></tr></table>"
    parsed = parse_html(page)
    assert parsed.markdown == "# Guide\n\n| light |\n| --- |\n| red |"
    assert [s.kind for s in parsed.sections] == ["table"]


spans = st.sampled_from(["", "rowspan=2", "rowspan=0", "colspan=3", "rowspan=3 colspan=2", "rowspan=x"])


@given(st.lists(st.lists(spans, min_size=1, max_size=4), min_size=2, max_size=5))
def test_every_cell_is_said_however_they_are_merged(rows: list[list[str]]) -> None:
    cells = [[f"<td {span}>c{r}x{c}</td>" for c, span in enumerate(row)] for r, row in enumerate(rows)]
    table = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    text = parse_html(f"<table>{table}</table>").markdown
    for number, row in enumerate(rows):
        for place in range(len(row)):
            assert f"c{number}x{place} " in text


@pytest.mark.parametrize(
    "rows",
    [
        ["<td rowspan=1000 colspan=1000>x</td>"] * 200,
        ["<td rowspan=1000>x</td>" * 20] * 60,
        ["<td rowspan=9999>x</td>" * 300, *["<td>x</td>"] * 100],
        ["<td colspan=1000>x</td>" * 20],
    ],
)
def test_cells_that_span_over_too_many_others_are_refused_with_advice(rows: list[str]) -> None:
    with pytest.raises(Unreadable, match="remove rowspan and colspan"):
        parse_html(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")


def test_a_long_table_with_merged_cells_is_read() -> None:
    rows = ["<td rowspan=50>x</td><td>1</td>", *["<td>2</td>"] * 49] * 20
    assert len(rows) < MOST_SPANNED
    assert len(rows_of(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")) >= len(rows)
