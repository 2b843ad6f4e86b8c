"""Tasks of lm-evaluation-harness as benchmarks; the data set of a hub is a folder that stands in for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.builds.lm_eval_tasks import read_tasks
from tunewheel_curate.evaluation.contamination import Search
from tunewheel_outputs.lm_eval_task import find_task
from tunewheel_runtime.store import ObjectStore

QUESTION = "Which of our pumps may run dry for as long as an hour without any harm to its seals?"
LINES = [
    {"question": QUESTION, "answer": "the LM-7"},
    {"question": "And which may not?", "answer": "the LM-8"},
]
DATA = "".join(json.dumps(line) + "\n" for line in LINES).encode()
QUIZ = """
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
doc_to_text: "{{question}}"
doc_to_target: answer
"""
NOWHERE = AllowedSources(hosts="example.org")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "store"))


Declare = Callable[..., Any]


@pytest.fixture
def declared(store: ObjectStore, spec: Any) -> Declare:
    """Put the task's folder into the store; returns the spec that names it by its hash."""

    async def declare(
        text: str = QUIZ, metric: str = "lm_eval.quiz.exact_match", **changes: Any
    ) -> ProjectSpec:
        files = {"quiz.yaml": text.encode(), "test.jsonl": DATA}
        for name, data in files.items():
            await store.put(f"benchmarks/quiz/{name}", data)
        known = {} if "sha256" in changes else {"sha256": find_task("quiz", files).sha256}
        task = {"task": "quiz", "path": "benchmarks/quiz"} | known | changes
        said = spec().model_dump(mode="json")
        said["criteria"].append({"metric": metric, "over_base": -0.1})
        return ProjectSpec.model_validate(said | {"evaluation": {"lm_eval": [task]}})

    return declare


async def test_its_questions_are_kept_out_of_training(store: ObjectStore, declared: Declare) -> None:
    (texts,) = await read_tasks(await declared(), store, NOWHERE)
    assert (texts.name, texts.texts) == ("lm_eval.quiz", (QUESTION, "And which may not?"))
    said = pl.DataFrame({"messages": [[{"role": "user", "content": f"Hello. {QUESTION} Thanks"}]]})
    search = Search((texts,), words=13, threshold=0.8)
    assert search.reasons(said) == {0: "contaminated: lm_eval.quiz"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sha256": "0" * 64}, r"evaluation\.lm_eval\.0\.sha256: benchmarks/quiz hashes to"),
        (
            {"task": "none", "sha256": "0" * 64},
            r"evaluation\.lm_eval\.0\.task: the folder has no task 'none'; .* quiz",
        ),
        (
            {"text": QUIZ + "process_docs: !function f.g", "sha256": "0" * 64},
            r"lm_eval\.0\.path: .*!function",
        ),
        ({"metric": "lm_eval.quiz.acc"}, r"criteria\.\d\.metric: .* it has lm_eval\.quiz\.exact_match"),
        ({"path": "datasets/theirs"}, r"evaluation\.lm_eval\.0\.path: .* is not below benchmarks/"),
        ({"path": "benchmarks/none"}, r"evaluation\.lm_eval\.0\.path: .* is not in the object store"),
    ],
)
async def test_what_cannot_be_asked_names_the_field(
    store: ObjectStore, declared: Declare, changes: dict[str, Any], complaint: str
) -> None:
    asked = await declared(**changes)
    with pytest.raises(InvalidSpec, match=complaint):
        await read_tasks(asked, store, NOWHERE)


async def test_data_of_a_hub_is_kept_for_eval(
    store: ObjectStore, declared: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = QUIZ.replace("dataset_path: json", "dataset_path: owner/quiz").replace(
        "{data_files: {test: test.jsonl}}", f"{{revision: '{'0123456789' * 4}'}}"
    )
    asked = await declared(hub)
    with pytest.raises(InvalidSpec, match=r"lm_eval\.0\.path: huggingface\.co is not a host"):
        await read_tasks(asked, store, NOWHERE)
    (tmp_path / "owner" / "quiz").mkdir(parents=True)
    (tmp_path / "owner" / "quiz" / "test.jsonl").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSpec, match=r"lm_eval\.0\.path: owner/quiz is in no folder"):
        await read_tasks(asked, store, NOWHERE)
    allowed = AllowedSources(hosts="example.org", folders=(str(tmp_path),))
    first = await read_tasks(asked, store, allowed)
    assert first[0].texts == (QUESTION, "And which may not?")
    shutil.rmtree(tmp_path / "owner")
    assert await read_tasks(asked, store, NOWHERE) == first  # the data is in the store now
