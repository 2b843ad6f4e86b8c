"""llama.cpp's programs write GGUF. What is missing, and what they refuse, is named."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from tokenizers import normalizers
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_testing.families import FAMILIES, train_pieces
from tunewheel_train.errors import NotExported
from tunewheel_train.exporting.gguf import Programs, find_programs, tell_engines, write_gguf
from tunewheel_train.exporting.merging import _lay_vocabulary


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder of llama.cpp with a script that refuses each model, and no other."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    made = tmp_path / "llama.cpp"
    made.mkdir()
    script = "import sys\nprint('loading', file=sys.stderr)\nsys.exit('Model Foo is not supported')\n"
    (made / "convert_hf_to_gguf.py").write_text(script)
    return made


def test_the_programs_are_in_the_folder_that_is_named(folder: Path, tmp_path: Path):
    with pytest.raises(NotExported, match="name its folder by --llama-cpp"):
        find_programs(None, "float16")
    with pytest.raises(NotExported, match=r"has no convert_hf_to_gguf\.py; name a folder"):
        find_programs(tmp_path, "float16")
    assert find_programs(folder, "q8_0") == Programs(folder / "convert_hf_to_gguf.py", None)
    with pytest.raises(NotExported, match="cmake --build build --target llama-quantize"):
        find_programs(folder, "q4_k_m")
    built = folder / "build" / "bin" / "llama-quantize"
    built.parent.mkdir(parents=True)
    built.write_text("#!/bin/sh\n")
    built.chmod(0o755)
    assert find_programs(folder, "q4_k_m").quantizer == str(built)


def test_what_the_script_refuses_is_told_in_its_words(folder: Path, tmp_path: Path):
    with pytest.raises(
        NotExported, match=r"convert_hf_to_gguf\.py of llama\.cpp refused .*: Model Foo is not"
    ):
        write_gguf(find_programs(folder, "q8_0"), tmp_path, tmp_path / "m", encoding="q8_0", name="m")


def test_what_the_quantizer_refuses_is_told_and_a_whole_file_does_not_stay(folder: Path, tmp_path: Path):
    script = (
        "import sys\nopen(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(' '.join(sys.argv[2:]))\n"
    )
    (folder / "convert_hf_to_gguf.py").write_text(script)
    quantizer = folder / "llama-quantize"
    quantizer.write_text('#!/bin/sh\ncp "$1" "$2"; echo "$3" >>"$2"\n')
    quantizer.chmod(0o755)
    programs = replace(find_programs(folder, "q8_0"), quantizer=str(quantizer))
    write_gguf(programs, tmp_path, tmp_path / "m.gguf", encoding="q4_k_m", name="desk")
    assert (tmp_path / "m.gguf").read_text().endswith("--outtype f32 --model-name deskQ4_K_M\n")
    assert not list(tmp_path.glob("whole*"))
    quantizer.write_text("#!/bin/sh\necho 'tensor is too odd' >&2; exit 1\n")
    with pytest.raises(NotExported, match=r"llama-quantize of llama\.cpp refused .*: tensor is too odd"):
        write_gguf(programs, tmp_path, tmp_path / "n.gguf", encoding="q4_k_m", name="desk")


@pytest.mark.parametrize("family", ["gemma3", "mistral"])
def test_llama_cpp_is_told_what_sentencepiece_does_not_know(family: str, tmp_path: Path):
    made, saved = tmp_path / "made", tmp_path / "saved"
    made.mkdir()
    tokenizer = train_pieces(FAMILIES[family], made)
    tokenizer.save_pretrained(saved)
    own = {"gemma3": "<start_of_turn>", "mistral": "[INST]"}[family]
    assert own not in str(
        json.loads((saved / "tokenizer_config.json").read_text()).get("added_tokens_decoder")
    )
    token_id = tokenizer.convert_tokens_to_ids(own)
    _lay_vocabulary(made / "tokenizer.model", tokenizer, saved, {tokenizer.bos_token_id, token_id})
    told = json.loads((saved / "tokenizer_config.json").read_text())
    assert told["added_tokens_decoder"][str(token_id)]["content"] == own
    assert told["add_prefix_space"] is False
    assert (saved / "tokenizer.model").read_bytes() == (made / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("begin", ["<s>", None])
def test_a_space_after_each_special_token_is_told(begin: str | None, tmp_path: Path):
    tokenizer = train_pieces(FAMILIES["mistral"], tmp_path)
    tokenizer.bos_token = begin
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("\u2581")  # as the tokenizer of Llama 2
    tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.save_pretrained(tmp_path / "saved")
    _lay_vocabulary(tmp_path / "tokenizer.model", tokenizer, tmp_path / "saved", {300})
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["add_prefix_space"] is True


@pytest.mark.parametrize("family", ["gemma3", "mistral"])
def test_a_space_before_prompts_alone_is_refused(family: str, tmp_path: Path):
    """llama.cpp puts a space before every text, or before none."""
    tokenizer = train_pieces(FAMILIES[family], tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    first = {tokenizer.bos_token_id, tokenizer("text").input_ids[-1]}
    refused = (
        pytest.raises(NotExported, match="let the chat template begin with the BOS token")
        if family == "mistral"
        else contextlib.nullcontext()
    )
    with refused:
        _lay_vocabulary(tmp_path / "tokenizer.model", tokenizer, tmp_path / "saved", first)


def write_told(path: Path, **told: bool | int) -> Path:
    """Write a GGUF file that says ``told`` of its tokens."""
    writer = GGUFWriter(path, "llama")
    for name, value in told.items():
        (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(f"tokenizer.ggml.{name}", value)
    writer.add_string("tokenizer.chat_template", "{{ bos_token }}")
    writer.add_tensor("token_embd.weight", np.arange(8, dtype=np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("begin", [7, None])
def test_engines_write_the_bos_token_with_which_training_prompts_begin(adds: bool, begin, tmp_path: Path):
    file = write_told(tmp_path / "m.gguf", bos_token_id=1, add_bos_token=adds, add_eos_token=adds)
    before = read_metadata(file)
    tell_engines(GGUFReader(file, "r+"), begin)
    said = {"add_bos_token": begin is not None, "add_eos_token": False, "bos_token_id": begin or 1}
    told = {f"tokenizer.ggml.{name}": value for name, value in said.items()}
    assert read_metadata(file) == {**before, **told}
    assert GGUFReader(file).tensors[0].data.tolist() == list(range(8))


@pytest.mark.parametrize("missing", ["bos_token_id", "add_bos_token", "add_eos_token"])
def test_a_script_that_leaves_the_tokens_to_engines_is_refused(missing: str, tmp_path: Path):
    whole: dict[str, bool | int] = {"bos_token_id": 1, "add_bos_token": True, "add_eos_token": False}
    del whole[missing]
    file = write_told(tmp_path / "m.gguf", **whole)
    with pytest.raises(NotExported, match=rf"wrote no {missing}, .*; use a newer llama\.cpp"):
        tell_engines(GGUFReader(file, "r+"), 1)
