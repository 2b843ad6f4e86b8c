"""Writes the list of commands into a page, from the table: `python -m tunewheel_cli.reference`."""

from __future__ import annotations

import sys
from pathlib import Path

from tunewheel_cli.table import PANELS

PAGE = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- commands -->\n", "<!-- /commands -->\n"


def reference() -> str:
    """Return the list of commands as Markdown."""
    rows = [
        f"| `{entry.words}` | {entry.help.rstrip('.')} |" for entries in PANELS.values() for entry in entries
    ]
    return "\n".join(["| command | does |", "|---|---|", *rows, ""])


def written(page: str) -> str:
    """Return ``page`` with the list of the table's commands between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{reference()}{END}{after}"


if __name__ == "__main__":
    found = PAGE.read_text("utf-8")
    if "--check" in sys.argv:
        sys.exit(f"{PAGE} is not of the table: run `make generate`" if written(found) != found else 0)
    PAGE.write_text(written(found), "utf-8")
