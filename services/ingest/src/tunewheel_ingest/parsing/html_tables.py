"""Changes HTML tables into what Markdown can express: a cell in every column of every row, and no nested
tables.

Most tables of Word and of wikis have merged cells, which Markdown lacks. Without its merged cell, the other
cells of a row would stand below the wrong headers.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

LONGEST_REPEATED = 200
"""A merged cell of at most so many characters is repeated in each row that it spans. A longer one is blank in
the rows after its first."""
MOST_COLUMNS = 1_000
"""The most columns that one cell may span, as in HTML 5 (§4.9.11)."""
_OF_TABLES = ("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption")


def settle_tables(soup: BeautifulSoup | Tag) -> None:
    """Change the tables below ``soup`` in place.

    A table around other tables only lays out the page, so it becomes plain blocks. Merged cells are repeated
    once per row. Bars in cells are escaped (GFM §4.10).
    """
    parts = [(part, part.find_parent("table")) for part in soup.find_all(_OF_TABLES)]
    around = {id(owner) for part, owner in parts if owner is not None and part.name == "table"}
    for part, owner in parts:
        if id(part) in around or (id(owner) in around and part.name != "table"):
            part.name = "div"
    for table in soup.find_all("table"):
        _fill(table)
        for text in table.find_all(string=lambda string: "|" in (string or "")):
            text.replace_with(str(text).replace("|", "\\|"))


def _fill(table: Tag) -> None:
    below: dict[int, tuple[int, Tag]] = {}  # by column: a cell from above, and how many more rows it spans
    rows = table.find_all("tr")
    for left, row in zip(range(len(rows), 0, -1), rows, strict=True):
        column, reaching, below = 0, below, {}
        for cell in [*row.find_all(["td", "th"], recursive=False), None]:
            while column in reaching:
                count, above = reaching.pop(column)
                again = _again(above)
                row.append(again) if cell is None else cell.insert_before(again)
                if count > 1:
                    below[column] = (count - 1, above)
                column += _span(above, "colspan", MOST_COLUMNS)
            if cell is None:
                break
            count = _span(cell, "rowspan", left) - 1
            if count:
                below[column] = (count, cell)
            column += _span(cell, "colspan", MOST_COLUMNS)
        # a cell from above that lies beyond the row's last cell, after a gap, continues downwards unchanged
        below |= {place: (count - 1, above) for place, (count, above) in reaching.items() if count > 1}


def _again(cell: Tag) -> Tag:
    again = copy.copy(cell)
    if len(again.get_text()) > LONGEST_REPEATED:
        again.clear()
    return again


def _span(cell: Tag, name: str, most: int) -> int:
    said = str(cell.get(name, "1"))
    told = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 1
    return min(most, told or (most if name == "rowspan" else 1))
