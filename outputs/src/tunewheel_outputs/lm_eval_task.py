"""Reads a task of lm-evaluation-harness from a folder of YAML and JSON Lines, without lm-eval.

A task is what lies in its folder: it names a task and the splits of its data, which are files of the folder
or a data set of the Hugging Face hub at one commit. What would run code of the task's, or read what lies
elsewhere, is refused. So is what gives no figure per question.
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
"""Values of ``dataset_path`` that mean files of the folder."""
_SPLITS = ("test_split", "validation_split", "fewshot_split", "training_split")


@dataclass(frozen=True)
class HubData:
    """A data set of the hub at one commit."""

    path: str
    name: str | None
    revision: str

    def stored(self, split: str) -> str:
        """Return where curate keeps a split in the object store, as JSON Lines."""
        cause = {"path": self.path, "name": self.name, "revision": self.revision, "split": split}
        return f"lm-eval/{content_id('data', cause)}.jsonl"


@dataclass(frozen=True)
class TaskSource:
    """A task's YAML, read and checked. ``config`` is without what says where its data lies."""

    name: str
    config: Mapping[str, Any]
    questions_split: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The data by split, where it lies in the folder."""
    hub: HubData | None = None
    hub_splits: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash the YAML's content and the data; a commit of the hub says what its data is."""
        data: dict[str, Any] = {split: content_sha256(text) for split, text in sorted(self.files.items())}
        if self.hub is not None:
            data = {"hub": [self.hub.path, self.hub.name, self.hub.revision], "splits": self.hub_splits}
        return content_sha256({"config": self.config, "data": data, "questions": self.questions_split})

    @property
    def figures(self) -> tuple[str, ...]:
        """The names by which criteria may ask for its figures."""
        listed = self.config.get("metric_list")
        names = [one["metric"] for one in listed] if listed else OUTPUT_TYPES[self.config["output_type"]]
        filters = [str(one.get("name")) for one in self.config.get("filter_list") or ()] or [UNFILTERED]
        return tuple(figure_name(self.name, metric, by) for metric in names for by in filters)

    def with_data(self, data: Mapping[str, bytes]) -> ReadTask:
        """Return the task with its questions.

        Raises:
            RefusedTask: a file is no JSON Lines, or there are too many questions.
        """
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
    """What each question says, without the template around it."""

    def limited(self, limit: int | None) -> tuple[str, ...]:
        return self.prompts[:limit]


def task_names(files: Mapping[str, bytes]) -> list[str]:
    """Return the tasks that a folder's YAML defines, in the order of its files."""
    found: list[str] = []
    for path in sorted(files):
        if path.endswith((".yaml", ".yml")) and isinstance(name := read_file(files, path).get("task"), str):
            found.append(name)
    return found


def find_task(name: str, files: Mapping[str, bytes]) -> TaskSource:
    """Return the task ``name`` of a folder; ``files`` by their path in it.

    Raises:
        RefusedTask: it is not there, or is none that can be taken.
    """
    for path in sorted(files):
        if path.endswith((".yaml", ".yml")) and read_file(files, path).get("task") == name:
            config = check_config(name, with_includes(files, path, ()))
            return _located(name, config, posixpath.dirname(path), files)
    there = ", ".join(task_names(files)) or "none"
    raise RefusedTask("task", f"{name!r} is no task of the folder; its YAML defines: {there}")


def find_pinned(task: LmEvalTask, files: Mapping[str, bytes]) -> TaskSource:
    """Return the task that a spec names, of its folder; ``files`` by their path in it.

    Raises:
        RefusedTask: it is not there, cannot be taken, or is another than the spec's hash says.
    """
    if not files:
        raise RefusedTask("path", f"{task.path} is not in the object store; put it there")
    source = find_task(task.task, files)
    if source.sha256 != task.sha256:
        reason = f"{task.path} hashes to {source.sha256}; restore it, or correct the spec"
        raise RefusedTask("sha256", reason)
    return source


def check_figures(metrics: Sequence[str], source: TaskSource) -> None:
    """Refuse criteria on figures of the task that it does not have.

    Raises:
        InvalidSpec: ``field`` is the path of the metric in the spec.
    """
    for number, metric in enumerate(metrics):
        if metric.startswith(figure_name(source.name, "")) and metric not in source.figures:
            offered = ", ".join(source.figures)
            reason = f"{metric} is no figure of the task; it has {offered}"
            raise InvalidSpec(field=f"criteria.{number}.metric", reason=reason)


def asked(config: Mapping[str, Any], doc: Mapping[str, Any]) -> str:
    """Return what ``doc`` puts into its prompt; into its target where the prompt holds nothing of it."""
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
            reason = f"{name}: dataset_kwargs.data_files names no file of split {missing[0]!r}; add it"
            raise RefusedTask("path", reason)
        return TaskSource(name, config, str(questions), {split: data[split] for split in splits})
    if not isinstance(place, str) or place.count("/") != 1 or place.startswith(("/", ".")):
        reason = (
            f"{name}: dataset_path {place!r} is neither json (files of the folder) nor owner/name of the "
        )
        raise RefusedTask("path", reason + "hub; loaders and folders elsewhere may run code, or be anybody's")
    if rest := sorted(set(options) - {"revision"}):
        raise RefusedTask("path", f"{name}: dataset_kwargs.{rest[0]} is not taken for hub data; leave it out")
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
        raise RefusedTask("path", f"{name}: dataset_kwargs.{rest[0]} is not taken; only data_files is")
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
            raise RefusedTask("path", f"split {split}, line {number} is no mapping; write one per line")
        docs.append(doc)
    return docs if split == wanted else []
