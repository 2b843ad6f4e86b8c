"""Writes the figures of a demo into README.md, between the marks ``<!-- demo -->`` and ``<!-- /demo -->``.

python scripts/readme_figures.py [var/demo/summary.json] [README.md]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- demo -->\n", "<!-- /demo -->"


def table(summary: dict[str, Any]) -> str:
    """Return the figures as a table in Markdown."""
    rows = [
        ("first answer of the tuned model to a customer", f"{summary['first_tuned_answer_seconds']:.0f} s")
    ]
    rows += [
        (f"turn {number}: training, {turn['examples']['train']} rows", f"{turn['training_seconds']:.0f} s")
        for number, turn in enumerate(summary["turns"], 1)
    ]
    rows += [
        (
            f"turn {number}: category right, of {turn['examples']['holdout']} held-out questions",
            ", ".join(
                f"{name} {turn[role]['category_accuracy']:.2f}"
                for role, name in (("base", "base"), ("champion", "first model"), ("candidate", "new model"))
                if turn[role]
            ),
        )
        for number, turn in enumerate(summary["turns"], 1)
    ]
    rows += [
        ("the whole story", f"{summary['total_seconds']:.0f} s"),
        ("peak memory (shared pages counted once)", f"{summary['peak_memory_bytes'] / 2**30:.1f} GiB"),
    ]
    head = f"| on {summary['cores']} cores of an {summary['processor']} | |\n|---|---|\n"
    return head + "".join(f"| {name} | {figure} |\n" for name, figure in rows)


def main() -> None:
    summary = json.loads(
        Path(sys.argv[1] if len(sys.argv) > 1 else "var/demo/summary.json").read_text("utf-8")
    )
    readme = Path(sys.argv[2] if len(sys.argv) > 2 else "README.md")
    before, _, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{readme}: holds no line {BEGIN.strip()} with {END} below it; add both")
    readme.write_text(before + BEGIN + table(summary) + END + after, "utf-8")


if __name__ == "__main__":
    main()
