"""Draws the charts of the pages of measurements from the tables on these pages.

``make charts`` draws what is missing or stale; ``--check`` fails where a table and its chart differ. A
comment above a table says what is drawn, so that a figure is written in the table alone:

    <!-- chart: gateway.svg kind=bars columns="plain, stream" rows="gateway|LiteLLM" axis="µs" goal=600 -->

``kind`` is ``bars`` (a group of bars for each row, a color for each column), ``stacked`` (one bar for each
row), or ``lines`` (a line for each row over the numbers in the columns' heads, ``across`` the lower axis).
``columns`` are heads of the table, ``rows`` is a regular expression for the first cells. ``goal`` is drawn as
a line (``line`` names it); ``scale=log`` makes the axis logarithmic. Of a cell the first number counts. A row
without a number is left out. Each SVG holds a hash of what was drawn.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"^<!-- chart: (\S+\.svg) (.+) -->\n+((?:\|.*\n)+)", re.MULTILINE)
MINUS = "\N{MINUS SIGN}"
NUMBER = re.compile(rf"[-+{MINUS}]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
GREY, COLORS = "#787878", ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9")
"""A grey that is legible on white and on black, and colors of Okabe and Ito, for color-blind people too."""
COLORED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class Chart:
    """What is drawn: by row, the first cell and the cells of ``columns``, as the page has them."""

    name: str
    options: dict[str, str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def digest(self) -> str:
        """A hash of all that is drawn, as it stands in the SVG."""
        drawn = json.dumps([self.options, self.columns, self.rows], ensure_ascii=False, sort_keys=True)
        return f"sha256:{sha256(drawn.encode()).hexdigest()}"


def charts(root: Path) -> Iterator[Chart]:
    """Yield the charts of all pages below ``root/docs``.

    :raises ValueError: a mark names a column that its table lacks, or no row is left to draw
    """
    for page in sorted((root / "docs").rglob("*.md")):
        for name, asked, table in MARK.findall(page.read_text("utf-8")):
            options = dict(word.split("=", 1) for word in shlex.split(asked))
            head, _, *body = [[_plain(cell) for cell in line.split("|")[1:-1]] for line in table.splitlines()]
            columns = options["columns"].split(", ")
            if missing := set(columns) - set(head):
                raise ValueError(f"{page.name}, {name}: no column {missing}; the table has {head}")
            cells = [[row[0], *(row[head.index(column)] for column in columns)] for row in body]
            rows = [row for row in cells if re.search(options.get("rows", ""), row[0])]
            if not (rows := [row for row in rows if any(value(cell) is not None for cell in row[1:])]):
                raise ValueError(f"{page.name}, {name}: no row of the table has a number to draw")
            yield Chart(name, options, columns, rows)


def _plain(cell: str) -> str:
    return re.sub(r"\[([^\]]+)\]\([^)]*\)|\*\*|`", r"\1", cell).strip()


def value(cell: str) -> float | None:
    """Return the first number of a cell, or None."""
    found = NUMBER.search(cell)
    return float(found[0].replace(",", "").replace(MINUS, "-")) if found else None


def stale(root: Path) -> list[str]:
    """Return what is wrong with the charts: missing, drawn from other figures, or of no table."""
    wanted = {chart.name: chart.digest for chart in charts(root)}
    there = {path.name: path.read_text("utf-8") for path in (root / "docs/measurements").glob("*.svg")}
    wrong = [f"{name} is not drawn" for name in wanted if name not in there]
    changed = [name for name in wanted if name in there and wanted[name] not in there[name]]
    wrong += [f"{name} differs from its table" for name in changed]
    return wrong + [f"{name} is of no table: delete it" for name in there if name not in wanted]


def draw(chart: Chart, path: Path) -> None:
    """Draw one chart as SVG. Text stays text, and the same figures give the same bytes."""
    import matplotlib as mpl  # not in the lock: `make charts` brings it along

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(dict.fromkeys(COLORED, GREY) | {"svg.fonttype": "none", "svg.hashsalt": chart.name})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    lines, bars = chart.options["kind"] == "lines", chart.options["kind"] == "bars"
    height = 0.9 + len(chart.rows) * (0.28 + 0.2 * (len(chart.columns) if bars else 1))
    figure, axes = plt.subplots(figsize=(7.6, 3.4 if lines else height), layout="constrained")
    (_lines if lines else _bars)(chart, axes)
    (axes.set_ylabel if lines else axes.set_xlabel)(chart.options["axis"])
    if goal := chart.options.get("goal"):
        line = axes.axhline if lines else axes.axvline
        line(float(goal), color=GREY, ls=":", zorder=0, label=f"{chart.options.get('line', 'goal')}: {goal}")
    if goal or len(chart.columns) > 1:
        figure.legend(loc="outside upper center", ncols=2 if lines else 5, frameon=False)
    about = {"Date": None, "Title": chart.options["axis"], "Description": chart.digest}
    figure.savefig(path, transparent=True, metadata=about)


def _lines(chart: Chart, axes: Any) -> None:
    places = [value(column) for column in chart.columns]
    for (label, *cells), color, marker in zip(chart.rows, COLORS, "os^Dv", strict=False):
        axes.plot(places, [value(cell) for cell in cells], marker=marker, color=color, label=label)
    axes.set(xlabel=chart.options["across"], xticks=places, xticklabels=chart.columns)


def _bars(chart: Chart, axes: Any) -> None:
    beside, places = chart.options["kind"] == "bars", range(len(chart.rows))
    thick, ends = (0.8 / len(chart.columns) if beside else 0.7), [0.0 for _ in places]
    for number, column in enumerate(chart.columns):
        found = [NUMBER.search(row[number + 1]) for row in chart.rows]
        lengths = [value(row[number + 1]) or 0.0 for row in chart.rows]
        shift = thick * (number - (len(chart.columns) - 1) / 2) if beside else 0
        at = [place + shift for place in places]
        bars = axes.barh(at, lengths, thick, ends, color=COLORS[number], label=column)
        if beside:
            axes.bar_label(bars, [one[0] if one else "" for one in found], padding=3, fontsize=9)
        else:
            ends = [end + length for end, length in zip(ends, lengths, strict=True)]
    axes.set(yticks=places, yticklabels=[row[0] for row in chart.rows])
    axes.invert_yaxis()
    axes.margins(x=0.1 if beside else 0, y=0.02)
    if "scale" in chart.options:
        axes.set_xscale(chart.options["scale"])
        axes.xaxis.set_major_formatter(lambda at, _: f"{at:,.6f}".rstrip("0").rstrip("."))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the charts whose tables have changed.")
    parser.add_argument("--check", action="store_true", help="draw nothing; fail where a chart is stale")
    is_check, wrong = parser.parse_args().check, stale(ROOT)
    for one in () if is_check else charts(ROOT):
        if any(line.startswith(f"{one.name} ") for line in wrong):
            draw(one, ROOT / "docs/measurements" / one.name)
    sys.exit("\n".join([*wrong, "run: make charts"]) if is_check and wrong else 0)
