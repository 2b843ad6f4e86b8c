"""Tables of HTML as Markdown can say them: a cell in every column of every row, no table within another.

Merged cells are what Word and wikis make most tables with; Markdown has none, and a row that lacks the cell
merged into it from above has all its other cells below the wrong heads.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

LONGEST_REPEATED = 200
"""Characters of a merged cell that is said again in the rows it reaches into; a longer one is blank there."""
MOST_COLUMNS = 1_000
"""That one cell may reach over: what HTML 5 (§4.9.11) allows."""
_OF_TABLES = ("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption")


def settle_tables(soup: BeautifulSoup | Tag) -> None:
    """Change the tables below ``soup`` in place: those around other tables only lay out a page and become
    plain blocks, merged cells are said once per row, and bars in cells are escaped (GFM §4.10)."""
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
    below: dict[int, tuple[int, Tag]] = {}  # by column: how many rows a cell above still reaches into
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
        # what stands beyond the row's last cell, with a gap before it, reaches on as it is
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
