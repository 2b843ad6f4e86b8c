from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tunewheel_train.data.datasets import Limits, encode_examples, read_examples, token_stats
from tunewheel_train.errors import RunFailed
from tunewheel_train.preparation import limits_of


def test_only_what_the_assistant_wrote_is_learnt(tiny, conversation_of):
    _, tokenizer = tiny
    (example,), refused = encode_examples([conversation_of(1)], tokenizer, max_tokens=512)
    learnt = [token for token, wanted in zip(example.input_ids, example.mask, strict=True) if wanted]
    assert tokenizer.decode(learnt) == '{"category": "battery"}<|im_end|>'
    assert refused == []


def test_of_a_thread_only_the_answer_is_learnt(tiny, conversation_of):
    """Earlier turns were written by anybody; replayed conversations were chosen whole."""
    _, tokenizer = tiny
    system, question, answer = conversation_of(1)["messages"]
    earlier = [question, {"role": "assistant", "content": "Which bike is it?"}]
    thread = {"example_id": "thread", "messages": [system, *earlier, question, answer]}
    replayed = thread | {"example_id": "replayed", "format": "replay"}
    for row, turns in ((thread, 1), (replayed, 2)):
        ((example,), _) = encode_examples([row], tokenizer, max_tokens=512)
        learnt = [token for token, wanted in zip(example.input_ids, example.mask, strict=True) if wanted]
        assert tokenizer.decode(learnt).count("<|im_end|>") == turns
        assert tokenizer.decode(learnt).endswith('{"category": "battery"}<|im_end|>')


def test_an_example_that_is_too_long_is_refused_with_its_length(tiny, conversation_of):
    rows = [conversation_of(0), conversation_of(4)]
    sizes = [len(encode_examples([row], tiny[1], max_tokens=512)[0][0]) for row in rows]
    assert sizes[0] < sizes[1]
    kept, refused = encode_examples(rows, tiny[1], max_tokens=sizes[1] - 1)
    assert [example.example_id for example in kept] == ["ex-000"]
    assert refused[0].reason == f"has {sizes[1]} tokens, more than train.max_tokens {sizes[1] - 1}"


def test_nothing_left_to_train_on_names_the_field(tiny, conversation_of):
    with pytest.raises(RunFailed, match=r"raise it, or shorten the examples") as caught:
        encode_examples([conversation_of(0)], tiny[1], max_tokens=3)
    assert caught.value.field == "train.max_tokens"


def test_an_example_without_an_answer_is_refused(tiny, conversation_of):
    silent = {"example_id": "silent", "messages": conversation_of(0)["messages"][:2]}
    _, refused = encode_examples([conversation_of(0), silent], tiny[1], max_tokens=512)
    assert [one.reason for one in refused] == ["has no assistant token to learn"]


@pytest.mark.parametrize(
    ("limits", "field", "words"),
    [
        (Limits(context=20), "base_model", "more than the base model's context of 20"),
        (Limits(unknown=1), "base_model", "characters that the base model's vocabulary lacks"),
    ],
)
def test_what_the_base_cannot_take_is_refused_and_names_it(tiny, conversation_of, limits, field, words):
    row = conversation_of(0)
    row["messages"][-1]["content"] = "<|im_start|>"  # token 1
    with pytest.raises(RunFailed, match=words) as caught:
        encode_examples([row], tiny[1], max_tokens=512, limits=limits)
    assert caught.value.field == field


def test_a_tokenizer_of_another_model_ends_the_run_at_its_first_impossible_token(tiny, conversation_of):
    with pytest.raises(RunFailed, match="use the tokenizer the model was trained with") as caught:
        encode_examples([conversation_of(0)], tiny[1], max_tokens=512, limits=Limits(vocabulary=50))
    assert caught.value.field == "base_model"
    assert "has 50 embeddings" in caught.value.reason


def test_a_base_without_a_chat_template_is_named_and_not_the_dataset(tiny, conversation_of):
    tiny[1].chat_template = None
    with pytest.raises(RunFailed, match="has no chat template; name an instruct model") as caught:
        encode_examples([conversation_of(0)], tiny[1], max_tokens=512)
    assert caught.value.field == "base_model"


def test_a_template_whose_answers_end_in_text_is_refused_and_not_half_learnt(tiny, conversation_of):
    tiny[
        1
    ].chat_template = (
        "{% for m in messages %}{{ '### ' + m['role'] + '\\n' + m['content'] + '\\n\\n' }}{% endfor %}"
    )
    with pytest.raises(RunFailed, match="ends with no special token such as eos_token") as caught:
        encode_examples([conversation_of(0)], tiny[1], max_tokens=512)
    assert caught.value.field == "base_model"
    assert "change the examples or the chat template" in caught.value.reason


def test_an_unknown_token_in_the_question_is_no_harm(tiny, conversation_of):
    # every conversation begins with token 1
    kept, _ = encode_examples([conversation_of(0)], tiny[1], max_tokens=512, limits=Limits(unknown=1))
    assert len(kept) == 1


def test_the_files_limits_are_read_from_config_and_tokenizer(tiny):
    assert limits_of({"max_position_embeddings": 512, "vocab_size": 99}, tiny[1]) == Limits(512, 99, None)
    assert limits_of({"text_config": {"vocab_size": 7}}, tiny[1]).vocabulary == 7


def test_groups_and_records_are_read_where_the_file_has_them(tmp_path: Path, tiny, conversation_of):
    row = conversation_of(0) | {"group": "g-1", "record_ids": ["r-1", "r-2"]}
    pl.DataFrame([row]).write_parquet(tmp_path / "train.parquet")
    (found,), _ = encode_examples(read_examples(tmp_path / "train.parquet"), tiny[1], max_tokens=512)
    assert (found.group, found.record_ids) == ("g-1", ("r-1", "r-2"))


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
