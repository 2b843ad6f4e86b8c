"""Reads a task of lm-evaluation-harness from a folder of YAML and JSON Lines, without lm-eval.

The folder's YAML names the task and the splits of its data. The data is files in the folder, or a data set of
the Hugging Face hub at a fixed commit. A task is refused if it would run code, read data from elsewhere, or
give no figure per question.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.lm_eval import LmEvalTask
from tunewheel_contracts.identity import content_id, content_sha256

from tunewheel_outputs.lm_eval_metric import UNFILTERED, figure_name
from tunewheel_outputs.lm_eval_yaml import (
    OUTPUT_TYPES,
    RefusedTask,
    check_config,
    inside,
    read_file,
    with_includes,
)

MAX_QUESTIONS = 20_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_EXPRESSION = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_WORD = re.compile(r"\w+")
_FORMATS = frozenset({"json"})
"""Values of ``dataset_path`` that stand for files in the folder."""
_SPLITS = ("test_split", "validation_split", "fewshot_split", "training_split")


@dataclass(frozen=True)
class HubData:
    """A data set of the Hugging Face hub at a fixed commit."""

    path: str
    name: str | None
    revision: str

    def stored(self, split: str) -> str:
        """Return the path of a split, as JSON Lines, at which curate keeps it in the object store."""
        cause = {"path": self.path, "name": self.name, "revision": self.revision, "split": split}
        return f"lm-eval/{content_id('data', cause)}.jsonl"


@dataclass(frozen=True)
class TaskSource:
    """A task's YAML, read and checked. ``config`` does not contain the keys about the location of the
    data."""

    name: str
    config: Mapping[str, Any]
    questions_split: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The data by split, if it is in the folder."""
    hub: HubData | None = None
    hub_splits: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the YAML's content and the data. For data of the hub its commit is hashed."""
        data: dict[str, Any] = {split: content_sha256(text) for split, text in sorted(self.files.items())}
        if self.hub is not None:
            data = {"hub": [self.hub.path, self.hub.name, self.hub.revision], "splits": self.hub_splits}
        return content_sha256({"config": self.config, "data": data, "questions": self.questions_split})

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the task's figures in criteria."""
        listed = self.config.get("metric_list")
        names = [one["metric"] for one in listed] if listed else OUTPUT_TYPES[self.config["output_type"]]
        filters = [str(one.get("name")) for one in self.config.get("filter_list") or ()] or [UNFILTERED]
        return tuple(figure_name(self.name, metric, by) for metric in names for by in filters)

    def with_data(self, data: Mapping[str, bytes]) -> ReadTask:
        """Return the task with its questions. Raises RefusedTask: a file is not JSON Lines, or there are too
        many questions."""
        docs = [
            doc for split, text in data.items() for doc in _docs(split, text, wanted=self.questions_split)
        ]
        if not docs:
            raise RefusedTask("path", f"{self.name} has no questions in {self.questions_split}; give some")
        return ReadTask(self, data, tuple(asked(self.config, doc) for doc in docs))


@dataclass(frozen=True)
class ReadTask:
    """A task and its data."""

    source: TaskSource
    data: Mapping[str, bytes]
    """JSON Lines by split."""
    prompts: tuple[str, ...]
    """The text of each question, without the template around it."""

    def limited(self, limit: int | None) -> tuple[str, ...]:
        return self.prompts[:limit]


def task_names(files: Mapping[str, bytes]) -> list[str]:
    """Return the names of the tasks that a folder's YAML files define, in the order of the files."""
    found: list[str] = []
    for path in sorted(files):
        if path.endswith((".yaml", ".yml")) and isinstance(name := read_file(files, path).get("task"), str):
            found.append(name)
    return found


def find_task(name: str, files: Mapping[str, bytes]) -> TaskSource:
    """Return the task ``name`` of a folder. ``files``: the folder's files by path. Raises RefusedTask: the
    task is missing or not supported."""
    for path in sorted(files):
        if path.endswith((".yaml", ".yml")) and read_file(files, path).get("task") == name:
            config = check_config(name, with_includes(files, path, ()))
            return _located(name, config, posixpath.dirname(path), files)
    there = ", ".join(task_names(files)) or "none"
    raise RefusedTask("task", f"the folder has no task {name!r}; its YAML defines: {there}")


def find_pinned(task: LmEvalTask, files: Mapping[str, bytes]) -> TaskSource:
    """Return the task that a spec names. ``files``: the files of its folder by path. Raises RefusedTask: the
    task is missing, is not supported, or does not match the hash in the spec."""
    if not files:
        raise RefusedTask("path", f"{task.path} is not in the object store; put it there")
    source = find_task(task.task, files)
    if source.sha256 != task.sha256:
        reason = f"{task.path} hashes to {source.sha256}; restore it, or correct the spec"
        raise RefusedTask("sha256", reason)
    return source


def check_figures(metrics: Sequence[str], source: TaskSource) -> None:
    """Refuse criteria on figures that the task does not have. Raises InvalidSpec: ``field`` is the path of
    the metric in the spec."""
    for number, metric in enumerate(metrics):
        if metric.startswith(figure_name(source.name, "")) and metric not in source.figures:
            offered = ", ".join(source.figures)
            reason = f"the task has no figure {metric}; it has {offered}"
            raise InvalidSpec(field=f"criteria.{number}.metric", reason=reason)


def asked(config: Mapping[str, Any], doc: Mapping[str, Any]) -> str:
    """Return the texts of ``doc`` that its prompt uses; those that its target uses, if the prompt uses
    none."""
    for part in ("doc_to_text", "doc_to_target"):
        template = str(config.get(part) or "")
        named = [
            template,
            *(word for inner in _EXPRESSION.findall(template) for word in _WORD.findall(inner)),
        ]
        texts = [text for name in dict.fromkeys(named) if name in doc for text in _texts(doc[name])]
        if texts:
            return "\n".join(texts).encode("utf-8", "replace").decode()
    return json.dumps(doc, sort_keys=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)


def _located(name: str, config: dict[str, Any], folder: str, files: Mapping[str, bytes]) -> TaskSource:
    place, subset = config.pop("dataset_path", None), config.pop("dataset_name", None)
    options = config.pop("dataset_kwargs", None) or {}
    splits = tuple(dict.fromkeys(str(config[key]) for key in _SPLITS if config.get(key)))
    questions = config.get("test_split") or config.get("validation_split")
    if questions is None or not isinstance(options, dict):
        raise RefusedTask(
            "path", f"{name} needs test_split or validation_split, and a mapping dataset_kwargs"
        )
    if place in _FORMATS:
        data = _folder_data(name, options, folder, files)
        if missing := [split for split in splits if split not in data]:
            reason = f"{name}: dataset_kwargs.data_files has no file for split {missing[0]!r}; add it"
            raise RefusedTask("path", reason)
        return TaskSource(name, config, str(questions), {split: data[split] for split in splits})
    if not isinstance(place, str) or place.count("/") != 1 or place.startswith(("/", ".")):
        reason = (
            f"{name}: dataset_path {place!r} must be json (files in the folder) or owner/name of the hub; "
            "other loaders may run code, and other folders may hold anybody's data"
        )
        raise RefusedTask("path", reason)
    if rest := sorted(set(options) - {"revision"}):
        reason = f"{name}: dataset_kwargs.{rest[0]} is not supported for hub data; leave it out"
        raise RefusedTask("path", reason)
    revision = str(options.get("revision", ""))
    if not _COMMIT.fullmatch(revision):
        reason = f"{name}: dataset_kwargs.revision must be a commit of {place}, all 40 digits; branches move"
        raise RefusedTask("path", reason)
    hub = HubData(place, None if subset is None else str(subset), revision)
    return TaskSource(name, config, str(questions), hub=hub, hub_splits=splits)


def _folder_data(
    name: str, options: Mapping[str, Any], folder: str, files: Mapping[str, bytes]
) -> dict[str, bytes]:
    named = options.get("data_files")
    if rest := sorted(set(options) - {"data_files"}):
        raise RefusedTask("path", f"{name}: dataset_kwargs.{rest[0]} is not supported; only data_files is")
    if not isinstance(named, dict) or not all(isinstance(one, str) for one in named.values()):
        raise RefusedTask("path", f"{name}: dataset_kwargs.data_files must name one file per split")
    return {str(split): files[inside(files, folder, one)] for split, one in named.items()}


def _docs(split: str, text: bytes, *, wanted: str) -> list[dict[str, Any]]:
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    if len(lines) > MAX_QUESTIONS:
        raise RefusedTask("path", f"split {split} has over {MAX_QUESTIONS:,} lines; take a part of it")
    docs: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            doc = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"split {split}, line {number} is not JSON ({error}); it must be JSON Lines"
            raise RefusedTask("path", reason) from error
        if not isinstance(doc, dict):
            raise RefusedTask("path", f"split {split}, line {number} is not a mapping; write one per line")
        docs.append(doc)
    return docs if split == wanted else []
