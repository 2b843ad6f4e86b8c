"""Reads the tasks of lm-evaluation-harness in a local folder, in the same way as curate and eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_outputs.lm_eval_task import RefusedTask, find_task, task_names


def tasks_in(folder: Path) -> list[dict[str, Any]]:
    """Return each task with its hash, questions and figures, or with the reason for its refusal.

    Raises:
        InvalidSpec: the folder holds no readable YAML.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    try:
        names = task_names(files)
    except RefusedTask as error:
        raise InvalidSpec(field=str(folder), reason=error.reason) from error
    if not names:
        raise InvalidSpec(field=str(folder), reason="holds no YAML with 'task: <name>'; is it the folder?")
    return [_told(name, files) for name in names]


def _told(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    try:
        source = find_task(name, files)
        questions = len(source.with_data(source.files).prompts) if source.hub is None else None
    except RefusedTask as error:
        return {"task": name, "refused": error.reason}
    return {"task": name, "sha256": source.sha256, "questions": questions, "figures": list(source.figures)}
