"""A GGUF file gives the adapter's answers when it is read back; what it cannot say is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_testing.tiny import tiny_tokenizer
from tunewheel_train.data.datasets import encode_examples
from tunewheel_train.errors import NotEqual, NotExported
from tunewheel_train.exporting import gguf_writing, merging
from tunewheel_train.exporting.gguf_vocabulary import name_of_cut
from tunewheel_train.exporting.gguf_writing import architecture_of
from tunewheel_train.exporting.merging import GGUF_TOLERANCE, Form, Trained, export_merged


@pytest.fixture
def prompts(tiny, conversation_of) -> list[tuple[int, ...]]:
    rows = [conversation_of(number) for number in range(20)]
    return [example.input_ids for example in encode_examples(rows, tiny[1], max_tokens=512)[0]]


@pytest.fixture
def adapter(trained, tiny_base) -> Trained:
    return Trained("tiny", tiny_base, trained("lora")[0].job.output_dir)


@pytest.mark.parametrize("encoding", ["float32", "float16", "q8_0"])
def test_a_gguf_file_answers_as_the_adapter(adapter, tmp_path: Path, prompts, encoding):
    parity = export_merged(adapter, tmp_path / "out", prompts=prompts, form=Form(gguf=encoding))
    assert parity.prompts == 20
    assert parity.mean_difference <= parity.tolerance == GGUF_TOLERANCE[encoding]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]
    told = read_metadata(tmp_path / "out" / "model.gguf")
    assert told["general.architecture"] == "llama"
    assert told["tokenizer.ggml.pre"] == "gpt-2"
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert told["tokenizer.chat_template"] == tiny_tokenizer().chat_template
    kinds = {one.name: one.tensor_type.name for one in GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    wanted = {"float32": "F32", "float16": "F16", "q8_0": "Q8_0"}[encoding]
    assert kinds["blk.0.attn_q.weight"] == wanted
    assert kinds["output_norm.weight"] == "F32"
    assert "output.weight" not in kinds


def test_rows_of_queries_and_keys_change_places(tiny, tmp_path: Path):
    model, tokenizer = tiny
    gguf_writing.write_gguf(model, tokenizer, tmp_path / "m.gguf", encoding="float32", name="tiny")
    tensors = {one.name: one.data for one in GGUFReader(tmp_path / "m.gguf").tensors}
    layer = model.model.layers[0].self_attn
    queries, values = layer.q_proj.weight.detach().numpy(), layer.v_proj.weight.detach().numpy()
    # Heads of eight: row 4, the first of a head's second half, comes to stand beside row 0.
    assert np.array_equal(tensors["blk.0.attn_q.weight"][:2], queries[[0, 4]])
    assert np.array_equal(tensors["blk.0.attn_v.weight"], values)


def test_a_file_with_rows_in_the_wrong_place_is_refused(adapter, tmp_path: Path, prompts, monkeypatch):
    monkeypatch.setattr(gguf_writing, "_neighbours", lambda rows, heads: rows)
    with pytest.raises(NotEqual, match=r"differ from the adapter's by \d"):
        export_merged(adapter, tmp_path / "out", prompts=prompts, form=Form(gguf="float32"))
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_reads_otherwise_is_refused(adapter, tmp_path: Path, prompts, monkeypatch):
    original = merging._read_back

    def spoilt(*arguments):
        model, reader = original(*arguments)
        reader.add_tokens(["Ticket"])
        return model, reader

    monkeypatch.setattr(merging, "_read_back", spoilt)
    with pytest.raises(NotEqual, match="into other tokens"):
        export_merged(adapter, tmp_path / "out", prompts=prompts, form=Form(gguf="float32"))
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_is_written_in_its_own_way(tmp_path: Path, prompts):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 8, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False,
        initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.bias)
    model.save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    base = locate_base_model(str(tmp_path / "qwen"), cache_dir=tmp_path)
    trained = Trained("qwen", base, tmp_path / "qwen", whole=True)
    parity = export_merged(trained, tmp_path / "out", prompts=prompts, form=Form(gguf="float32"))
    assert parity.mean_difference < 1e-3
    told = read_metadata(tmp_path / "out" / "model.gguf")
    assert told["general.architecture"] == "qwen2"
    assert told["tokenizer.ggml.tokens"][-1] == f"[PAD{len(tokenizer) + 7}]"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt_neox"}, "type gpt_neox are not written"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_type llama3"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tiny, change, named):
    config = tiny[0].config
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(NotExported, match=named):
        architecture_of(config)


def test_a_special_token_that_the_model_has_no_row_for_is_refused(tiny, tmp_path: Path):
    model, tokenizer = tiny
    tokenizer.add_special_tokens({"bos_token": "<begin>"})
    with pytest.raises(
        NotExported, match="bos token is 384, but the model has 384 embeddings; export safetensors"
    ):
        gguf_writing.write_gguf(model, tokenizer, tmp_path / "m.gguf", encoding="float32", name="tiny")


def test_weights_beyond_half_precision_are_refused(tiny, tmp_path: Path):
    model, tokenizer = tiny
    model.model.embed_tokens.weight.data[0, 0] = 1e6
    with pytest.raises(NotExported, match=r"token_embd\.weight holds weights beyond"):
        gguf_writing.write_gguf(model, tokenizer, tmp_path / "m.gguf", encoding="float16", name="tiny")


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def cut(pre_tokenizer, **model):
    return {"model": {"type": "BPE", "vocab": {}} | model, "pre_tokenizer": pre_tokenizer}


def split(name: str) -> dict[str, object]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    pattern = {"Regex": GGUF_PRE_TOKENIZER_SPLITS[name]}
    steps = [{"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}]
    return {"type": "Sequence", "pretokenizers": [*steps, BYTES | {"use_regex": False}]}


def test_cuts_that_have_a_name_are_named():
    digits = {"type": "Digits", "individual_digits": True}
    assert name_of_cut(cut(BYTES)) == "gpt-2"
    assert name_of_cut(cut({"type": "Sequence", "pretokenizers": [digits, BYTES]})) == "smollm"
    assert name_of_cut(cut(split("llama-bpe"), ignore_merges=True)) == "llama-bpe"
    assert name_of_cut(cut(split("qwen2")) | {"normalizer": {"type": "NFC"}}) == "qwen2"


@pytest.mark.parametrize(
    "described",
    [
        cut(BYTES | {"add_prefix_space": True}),
        cut({"type": "Metaspace"}),
        cut(split("tekken")),
        cut(split("llama-bpe")),
        cut(BYTES) | {"normalizer": {"type": "NFKC"}},
        cut(BYTES, type="Unigram"),
        cut(BYTES, byte_fallback=True),
    ],
    ids=json.dumps,
)
def test_cuts_that_have_none_are_refused(described):
    with pytest.raises(NotExported, match="export safetensors"):
        name_of_cut(described)
