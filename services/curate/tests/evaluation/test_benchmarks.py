from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import Benchmark
from tunewheel_contracts.identity import content_sha256
from tunewheel_curate.evaluation.benchmarks import read_benchmarks, regression_benchmark
from tunewheel_runtime.store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path))


async def test_files_and_inline_texts_are_read(store: ObjectStore) -> None:
    data = b'"a plain line"\n\n{"question": "and a field"}\n'
    await store.put("benchmarks/a.jsonl", data)
    declared = [
        Benchmark(name="file", path="benchmarks/a.jsonl", field="question", sha256=content_sha256(data)),
        Benchmark(name="inline", texts=("one",)),
    ]
    file, inline = await read_benchmarks(declared, store)
    assert (file.name, file.texts) == ("file", ("a plain line", "and a field"))
    assert inline.texts == ("one",)
    assert file.sha256 == content_sha256(["a plain line", "and a field"])


async def test_half_an_emoji_in_a_text_ends_no_build(store: ObjectStore) -> None:
    await store.put("benchmarks/b.jsonl", b'"the bell \\ud83d"')
    (read,) = await read_benchmarks([Benchmark(name="mine", path="benchmarks/b.jsonl")], store)
    assert read.texts == ("the bell ?",)


@pytest.mark.parametrize(
    ("data", "options", "complaint"),
    [
        (None, {}, r"benchmarks\.0\.path: .* is not in the object store"),
        (b'{"text": "a"}', {"sha256": "0" * 64}, r"benchmarks\.0\.sha256: .* hashes to"),
        (b'"ok"\n{"text"', {}, "line 2 is not JSON"),
        (b'{"other": "a"}', {}, "line 1 has no text in 'text'"),
        (b"\xff\xfe", {}, "line 1 is not JSON"),
        (b"[" * 100_000, {}, "line 1 is not JSON"),
        (b"\n", {}, "holds no texts"),
    ],
)
async def test_what_cannot_be_read_names_the_field(store: ObjectStore, data, options, complaint) -> None:
    if data is not None:
        await store.put("benchmarks/b.jsonl", data)
    with pytest.raises(InvalidSpec, match=complaint):
        await read_benchmarks([Benchmark(name="mine", path="benchmarks/b.jsonl", **options)], store)


async def test_no_file_is_read_that_may_be_another_projects(store: ObjectStore) -> None:
    await store.put("datasets/ds-theirs/lines.jsonl", b'"what they asked"')
    with pytest.raises(InvalidSpec, match=r"benchmarks\.0\.path: .* is not below benchmarks/"):
        await read_benchmarks([Benchmark(name="mine", path="datasets/ds-theirs/lines.jsonl")], store)


def test_the_regression_set_is_a_benchmark(tmp_path: Path) -> None:
    assert len(regression_benchmark(None).texts) >= 60
    own = tmp_path / "own.jsonl"
    item = {"item_id": "1", "kind": "k", "prompt": "What is it?", "answer": "x", "match": "contains"}
    own.write_text(json.dumps(item))
    assert regression_benchmark(own).texts == ("What is it?",)
