"""Reads a project's last scorecard from the store, and checks tasks of lm-evaluation-harness in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import Slug
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_outputs.lm_eval_task import RefusedTask, find_task, task_names

if TYPE_CHECKING:
    from tunewheel_runtime.store import ObjectStore

LOOK_SECONDS = 1.0
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)
_CRITERIA: TypeAdapter[tuple[Criterion, ...]] = TypeAdapter(tuple[Criterion, ...])


_MOST_READ = 50


async def last_scorecard(store: ObjectStore, project: str) -> Scorecard | None:
    """Return the project's newest scorecard with figures; None: it has none among the newest of all projects.

    Raises TransientError: the store is away.
    """
    written = await store.written("scorecards")
    paths = [path for path in written if path.count("/") == 1 and path.endswith(".json")]
    for path in sorted(paths, key=lambda path: (written[path], path), reverse=True)[:_MOST_READ]:
        data = await store.read(path)
        try:
            card = decode_data(Scorecard, data or b"")
        except InvalidEvent:
            continue
        if card.project == project and card.contestants:
            return card
    return None


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
    return [_described(name, files) for name in names]


def _described(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    try:
        source = find_task(name, files)
        questions = len(source.with_data(source.files).prompts) if source.hub is None else None
    except RefusedTask as error:
        return {"task": name, "refused": error.reason}
    return {"task": name, "sha256": source.sha256, "questions": questions, "figures": list(source.figures)}
