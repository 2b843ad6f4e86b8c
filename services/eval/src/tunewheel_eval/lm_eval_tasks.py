"""Reads the lm-evaluation-harness tasks of an evaluation, without loading lm-eval."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.formats.lm_eval import LmEvalTask
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_outputs.lm_eval_metric import PREFIX
from tunewheel_outputs.lm_eval_task import ReadTask, RefusedTask, find_pinned
from tunewheel_runtime.store import ObjectStore
from tunewheel_verdicts.significance import Clusters

from tunewheel_eval.clusters import clusters_of
from tunewheel_eval.job import LmEvalJob

PACKAGE = "lm-eval"


@dataclass(frozen=True)
class AskedTask:
    """A task, and the keys of its questions' rows."""

    spec: LmEvalTask
    place: str
    """Its path in the project's spec."""
    read: ReadTask
    keys: tuple[str, ...]

    @property
    def rows(self) -> str:
        """The value of ``on`` of its metrics."""
        return f"{PREFIX}{self.spec.task}"

    def clusters(self) -> Clusters:
        """Return the cluster number of each question. Nearly the same questions share a cluster."""
        prompts = self.read.prompts[: len(self.keys)]
        return clusters_of(list(range(len(prompts))), prompts)


async def read_asked(store: ObjectStore, spec: ProjectSpec) -> tuple[AskedTask, ...]:
    """Return the tasks that a project is judged by.

    Raises:
        InvalidEvent: lm-eval is not installed, or the store does not have a task as the spec names it.
        TransientError: the store cannot be reached.
    """
    if not spec.evaluation.lm_eval:
        return ()
    harness, found = _version(), list[AskedTask]()
    for number, task in enumerate(spec.evaluation.lm_eval):
        place = f"spec.evaluation.lm_eval.{number}"
        try:
            read = await _read(store, task)
        except RefusedTask as error:
            raise InvalidEvent(field=f"dataset.{place}.{error.field}", reason=error.reason) from error
        keys = tuple(
            content_sha256({"task": task.sha256, "question": question, "chat": task.chat_template} | harness)
            for question in range(len(read.prompts[: task.limit]))
        )
        found.append(AskedTask(task, place, read, keys))
    return tuple(found)


async def write_jobs(tasks: Sequence[AskedTask], directory: Path) -> tuple[LmEvalJob, ...]:
    """Write the tasks' data below ``directory``; return the tasks' part of the job."""
    return tuple([await asyncio.to_thread(_write, task, directory / task.spec.task) for task in tasks])


def _write(task: AskedTask, folder: Path) -> LmEvalJob:
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for number, (split, lines) in enumerate(task.read.data.items()):
        files[split] = folder / f"{number}.jsonl"
        files[split].write_bytes(lines)
    return LmEvalJob(
        name=task.spec.task,
        place=task.place,
        config=dict(task.read.source.config),
        data=files,
        keys=task.keys,
        chat_template=task.spec.chat_template,
    )


def _version() -> dict[str, str]:
    """Return the version of lm-eval. Another version may prompt differently, so its rows are not mixed."""
    try:
        return {"lm_eval": version(PACKAGE)}
    except PackageNotFoundError:
        raise InvalidEvent(
            field="dataset.spec.evaluation.lm_eval",
            reason="names tasks of lm-evaluation-harness, which this eval cannot ask; install "
            "tunewheel-eval[lm-eval] and send the event again",
        ) from None


async def _read(store: ObjectStore, task: LmEvalTask) -> ReadTask:
    source = find_pinned(task, await store.read_folder(task.path))
    data = dict(source.files)
    if source.hub is not None:
        for split in source.hub_splits:
            path = source.hub.stored(split)
            if (lines := await store.read(path)) is None:
                raise RefusedTask("path", f"{path} is gone from the store; build a dataset version anew")
            data[split] = lines
    return source.with_data(data)
