"""Questions of lm-evaluation-harness against its own ``simple_evaluate``, on the tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_eval import harness
from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.harness import ask
from tunewheel_eval.job import LmEvalJob
from tunewheel_eval.measurement import LmEvalRow
from tunewheel_outputs.lm_eval_metric import FORMS, figure_name
from tunewheel_outputs.lm_eval_task import find_task

from .harness_tasks import FOLDER, NAMES


def job(name: str, folder: Path, files: dict[str, bytes] = FOLDER, **changes: Any) -> LmEvalJob:
    source = find_task(name, files)
    data = {split: folder / name / f"{split}.jsonl" for split in source.files}
    for split, path in data.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.files[split])
    keys = tuple(f"{n:064x}" for n in range(len(source.with_data(source.files).prompts)))
    plain = {"name": name, "place": "spec.evaluation.lm_eval.0", "config": source.config, "data": data}
    return LmEvalJob.model_validate(plain | {"keys": keys} | changes)


def rows(one: LmEvalJob, tiny: tuple[Any, Any], **options: Any) -> dict[str, LmEvalRow]:
    told = {"batch_size": 1, "holds": lambda keys: False} | options
    found = [row for part in ask(one, told.pop("keys", one.keys), *tiny, **told) for row in part]
    return {row.key: row for row in found}


def of_lm_eval(names: Sequence[str], tiny: tuple[Any, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """Return the samples of ``simple_evaluate`` by task, on the YAML as its own loader reads it."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for path, data in FOLDER.items():
        if path.endswith(".yaml"):
            config = yaml.safe_load(data)
            files = config["dataset_kwargs"]["data_files"]
            config["dataset_kwargs"] = {
                "data_files": {split: str(folder / name) for split, name in files.items()},
                "cache_dir": str(folder / "cache"),
            }
            data = yaml.safe_dump(config).encode()
        folder.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    lm = HFLM(pretrained=tiny[0], tokenizer=tiny[1], batch_size=1)
    found = simple_evaluate(lm, tasks=[*names], task_manager=manager, bootstrap_iters=0, **options)
    assert found is not None
    return found["samples"]


def check_equal(own: Sequence[LmEvalRow], samples: Sequence[dict[str, Any]], name: str) -> None:
    assert len(samples) == len(own) * len({one["filter"] for one in samples})
    for one in samples:
        row = own[one["doc_id"]]
        assert [list(said) if isinstance(said, tuple) else said for said in row.responses] == [
            list(said[0]) if isinstance(said[0], tuple) else said[0] for said in one["resps"]
        ]
        for metric in set(one["metrics"]) & set(FORMS):
            value, weight = row.scores[figure_name(name, metric, one["filter"])]
            theirs = one[metric]
            assert (value, weight) == (
                (-theirs[0], theirs[1]) if isinstance(theirs, tuple) else (theirs, 1.0)
            )  # fmt: skip


def test_each_question_has_what_simple_evaluate_gives_it(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    theirs = of_lm_eval(NAMES, tiny, tmp_path / "theirs")
    for name in NAMES:
        one = job(name, tmp_path)
        own = rows(one, tiny)
        assert tuple(own) == one.keys
        check_equal([*own.values()], theirs[name], name)
        assert {figure for row in own.values() for figure in row.scores} == set(
            find_task(name, FOLDER).figures
        )
    chat = of_lm_eval(["choice"], tiny, tmp_path / "theirs", apply_chat_template=True, limit=3)
    one = job("choice", tmp_path, chat_template=True)
    own = [*rows(one.model_copy(update={"keys": one.keys[:3]}), tiny).values()]
    check_equal(own, chat["choice"], "choice")
    assert own[0].responses != rows(job("choice", tmp_path), tiny, keys=one.keys[:1])[one.keys[0]].responses


def test_what_is_there_is_not_asked_again(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a task, and with rows of an earlier evaluation: the same rows, few-shot too."""
    monkeypatch.setattr(harness, "_BATCHES", 2)
    one = job("choice", tmp_path)
    whole = rows(one, tiny)
    first = next(iter(ask(one, one.keys, *tiny, batch_size=1, holds=lambda keys: False)))
    kept = {row.key for row in first}
    assert len(kept) == 2
    rest = rows(one, tiny, holds=lambda keys: set(keys) <= kept)
    assert rest == {key: row for key, row in whole.items() if key not in kept}
    assert rows(one, tiny, keys=one.keys[3:4]) == {one.keys[3]: whole[one.keys[3]]}
    assert not rows(one, (tiny[0], tiny[1]), holds=lambda keys: True)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ cycler.__init__.__globals__.os.getcwd() }}", "SecurityError"),
        ("{{ nowhere }}", "UndefinedError: 'nowhere' is undefined"),
        ("{% for x in %}", "TemplateSyntaxError"),
    ],
)
def test_a_template_that_lm_eval_cannot_fill_names_the_task(
    tiny: tuple[Any, Any], tmp_path: Path, template: str, complaint: str
) -> None:
    text = FOLDER["echo.yaml"].replace(b"doc_to_text: asked", f"doc_to_text: {json.dumps(template)}".encode())
    with pytest.raises(UnfitCandidate, match=complaint) as caught:
        rows(job("echo", tmp_path, FOLDER | {"echo.yaml": text}), tiny)
    assert caught.value.field == "spec.evaluation.lm_eval.0.path"
