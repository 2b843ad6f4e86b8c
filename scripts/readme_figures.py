"""Writes the figures of a demo into README.md, between the marks ``<!-- demo -->`` and ``<!-- /demo -->``,
or what each reader's path took into its page, between ``<!-- walk -->`` and ``<!-- /walk -->``.

python scripts/readme_figures.py [var/demo/summary.json] [README.md]
python scripts/readme_figures.py var/nightly/paths.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "CONTRIBUTING.md": "; packages were in the cache",
    "docs/for-ml-engineers.md": "; a model of some ten thousand weights stood in for the 7B",
}
"""By page, what else must be known of its figures."""


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


def walked(summary: dict[str, Any], page: str) -> str:
    """Return the line that says what a page's path took."""
    took, cores = summary["paths"][page], summary["cores"]
    where = f"{cores} cores of an {summary['processor']} that had other work too"
    return (
        f"Walked in {took['commands']} commands and {took['seconds']} s on {where}{BESIDE.get(page, '')}.\n"
    )


def put(page: Path, mark: str, text: str) -> None:
    """Write ``text`` between the marks of a page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{page}: holds no line {begin.strip()} with {end} below it; add both")
    page.write_text(before + begin + text + end + after, "utf-8")


def main() -> None:
    told = Path(sys.argv[1] if len(sys.argv) > 1 else "var/demo/summary.json").read_text("utf-8")
    summary = json.loads(told)
    if "paths" not in summary:
        put(Path(sys.argv[2] if len(sys.argv) > 2 else "README.md"), "demo", table(summary))
    for page in summary.get("paths", ()):
        put(ROOT / page, "walk", walked(summary, page))


if __name__ == "__main__":
    main()
