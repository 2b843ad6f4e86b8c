from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tunewheel_train.datasets import encode_examples, read_examples, token_stats
from tunewheel_train.errors import RunFailed


def test_only_what_the_assistant_wrote_is_learnt(tiny, conversation):
    _, tokenizer = tiny
    (example,), refused = encode_examples([conversation(1)], tokenizer, max_tokens=512)
    learnt = [token for token, wanted in zip(example.input_ids, example.mask, strict=True) if wanted]
    assert tokenizer.decode(learnt) == '{"category": "battery"}<|im_end|>'
    assert refused == []


def test_an_example_that_is_too_long_is_refused_with_its_length(tiny, conversation):
    rows = [conversation(0), conversation(4)]
    sizes = [len(encode_examples([row], tiny[1], max_tokens=512)[0][0]) for row in rows]
    assert sizes[0] < sizes[1]
    kept, refused = encode_examples(rows, tiny[1], max_tokens=sizes[1] - 1)
    assert [example.example_id for example in kept] == ["ex-000"]
    assert refused[0].reason == f"has {sizes[1]} tokens, more than train.max_tokens {sizes[1] - 1}"


def test_nothing_left_to_train_on_names_the_field(tiny, conversation):
    with pytest.raises(RunFailed, match=r"raise it, or shorten the examples") as caught:
        encode_examples([conversation(0)], tiny[1], max_tokens=3)
    assert caught.value.field == "train.max_tokens"


def test_an_example_without_an_answer_is_refused(tiny, conversation):
    silent = {"example_id": "silent", "messages": conversation(0)["messages"][:2]}
    _, refused = encode_examples([conversation(0), silent], tiny[1], max_tokens=512)
    assert [one.reason for one in refused] == ["has no assistant token to learn"]


def test_stats_count_whole_and_learnt_tokens(encoded):
    stats = token_stats(encoded)
    assert stats.examples == 24
    assert 0 < stats.assistant < stats.tokens
    assert stats.longest == max(len(example) for example in encoded)


@pytest.mark.parametrize("content", [b"not parquet", b""])
def test_a_broken_file_names_the_dataset(tmp_path: Path, content: bytes):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(RunFailed, match="build the dataset again") as caught:
        read_examples(tmp_path / "train.parquet")
    assert caught.value.field == "dataset.train"


def test_a_file_without_the_columns_names_the_dataset(tmp_path: Path):
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(RunFailed, match=r"messages|example_id"):
        read_examples(tmp_path / "train.parquet")
