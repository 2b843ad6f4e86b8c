"""admin lm-eval: checks tasks of lm-evaluation-harness for ``evaluation.lm_eval``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, reaching


@reaching
def command(
    reach: Reach,
    folder: Annotated[
        Path, typer.Argument(help="Folder of YAML and JSON Lines.", exists=True, file_okay=False)
    ],
) -> None:
    """Check the tasks of lm-evaluation-harness in a folder; print their hashes for evaluation.lm_eval."""
    from tunewheel_cli.evaluations import tasks_in

    found = tasks_in(folder)
    if reach.as_json:
        print_json(found)
    for one in () if reach.as_json else found:
        if "refused" in one:
            print(f"{one['task']}: refused: {one['refused']}")
            continue
        asked = "questions on the hub" if one["questions"] is None else f"{one['questions']} questions"
        print(f"{one['task']}: {asked}; {', '.join(one['figures'])}\n  sha256: {one['sha256']}")
    if any("refused" in one for one in found):
        sys.exit(Exit.REFUSED)
