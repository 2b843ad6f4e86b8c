"""admin lm-eval: checks tasks of lm-evaluation-harness for ``evaluation.lm_eval``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from tunewheel_contracts.errors import InvalidSpec

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, on_folder


@on_folder
def command(
    reach: Reach,
    folder: Annotated[
        Path, typer.Argument(help="Folder of YAML and JSON Lines.", exists=True, file_okay=False)
    ],
) -> None:
    """Check the tasks of lm-evaluation-harness in a folder; print their hashes for evaluation.lm_eval."""
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


def tasks_in(folder: Path) -> list[dict[str, Any]]:
    """Return each task with its hash, questions and figures, or with the reason for its refusal.

    Raises:
        InvalidSpec: the folder holds no readable YAML.
    """
    from tunewheel_outputs.lm_eval_task import RefusedTask, task_names

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    try:
        names = task_names(files)
    except RefusedTask as error:
        raise InvalidSpec(field=str(folder), reason=error.reason) from error
    if not names:
        raise InvalidSpec(field=str(folder), reason="holds no YAML with 'task: <name>'; is it the folder?")
    return [_described(name, files) for name in names]


def _described(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    from tunewheel_outputs.lm_eval_task import RefusedTask, find_task

    try:
        source = find_task(name, files)
        questions = len(source.with_data(source.files).prompts) if source.hub is None else None
    except RefusedTask as error:
        return {"task": name, "refused": error.reason}
    return {"task": name, "sha256": source.sha256, "questions": questions, "figures": list(source.figures)}
