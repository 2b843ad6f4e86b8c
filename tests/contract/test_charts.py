"""Each chart of the measurements is drawn from the table on its page, and each page has one."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/measurements").glob("*.md"))
_spec = importlib.util.spec_from_file_location("charts_of_pages", ROOT / "scripts/charts.py")
assert _spec is not None
assert _spec.loader is not None
drawing: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = drawing  # a dataclass looks its module up
_spec.loader.exec_module(drawing)
TABLE = f"""<!-- chart: a.svg kind=bars columns="ours, theirs" axis="s" -->

| what | ours | theirs | note |
|---|---:|---:|---|
| **one** | 1,475 | .5 to .6 | new |
| two | {drawing.MINUS}.10 |  | old |
| none | n/a | | |
"""


def test_no_chart_differs_from_its_table() -> None:
    assert drawing.stale(ROOT) == [], "run: make charts"
    assert len(list(drawing.charts(ROOT))) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_measurements_shows_a_small_chart_whose_text_is_text(page: Path) -> None:
    shown = [page.parent / name for name in re.findall(r"!\[.+?\]\((\S+\.svg)\)", page.read_text("utf-8"))]
    assert shown
    assert all(path.stat().st_size <= 40_000 and "<text" in path.read_text("utf-8") for path in shown)


def _page(root: Path, text: str) -> list[str]:
    (root / "docs/measurements").mkdir(parents=True, exist_ok=True)
    (root / "docs/measurements/page.md").write_text(text, "utf-8")
    return drawing.stale(root)


def test_figures_are_read_as_the_page_writes_them(tmp_path: Path) -> None:
    _page(tmp_path, TABLE)
    (chart,) = drawing.charts(tmp_path)
    assert chart.rows == [["one", "1,475", ".5 to .6"], ["two", f"{drawing.MINUS}.10", ""]]
    assert [drawing.value(cell) for row in chart.rows for cell in row[1:]] == [1475, 0.5, -0.1, None]


@pytest.mark.parametrize(
    ("was", "now", "is_stale"),
    [
        ("1,475", "1,476", True),
        ("kind=bars", "kind=stacked", True),
        ("two", "three", True),
        ("new", "newer", False),
    ],
)
def test_a_chart_is_stale_once_something_that_it_shows_has_changed(
    was: str, now: str, is_stale: bool, tmp_path: Path
) -> None:
    assert _page(tmp_path, TABLE) == ["a.svg is not drawn"]
    (chart,) = drawing.charts(tmp_path)
    (tmp_path / "docs/measurements/a.svg").write_text(f"<svg>{chart.digest}</svg>")
    assert _page(tmp_path, TABLE) == []
    assert _page(tmp_path, TABLE.replace(was, now)) == ["a.svg differs from its table"] * is_stale
    assert _page(tmp_path, "no mark") == ["a.svg is of no table: delete it"]


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [('"ours, theirs"', '"ours, gone"', "no column"), ("kind", 'rows="^three" kind', "no row")],
)
def test_a_mark_without_its_column_or_a_row_is_refused(was: str, now: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"page\.md, a\.svg: {told}"):
        _page(tmp_path, TABLE.replace(was, now))
