"""llama.cpp's programs write GGUF. What is missing, and what they refuse, is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import normalizers
from tunewheel_testing.families import FAMILIES, train_pieces
from tunewheel_train.errors import NotEqual, NotExported
from tunewheel_train.exporting.gguf import Programs, demand_same_rotations, find_programs, write_gguf
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


LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}


@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ({"rope_type": "default", "rope_theta": 10_000.0}, {}),
        ({"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0}, {"freq_base": 5e5}),
        (LINEAR, {"freq_base": 1e6, "scaling.factor": 8.0}),
        ({"full_attention": LINEAR, "sliding_attention": {"rope_theta": 1e4}},
         {"freq_base": 1e6, "scaling.factor": 8.0}),
        ({"full_attention": LINEAR, "sliding_attention": {"rope_theta": 5e4}},
         {"freq_base": 1e6, "scaling.factor": 8.0, "freq_base_swa": 5e4}),
        ({"rope_type": "dynamic", "rope_theta": 10_000.0, "alpha": 1000.0}, {"freq_base": 11_158_840.0}),
        (None, {}),
    ],
)  # fmt: skip
def test_the_rotations_of_a_file_are_those_of_the_model(rope, told):
    config = SimpleNamespace(rope_parameters=rope)
    metadata = {"general.architecture": "of", **{f"of.rope.{name}": value for name, value in told.items()}}
    demand_same_rotations(metadata, config)


@pytest.mark.parametrize(
    ("rope", "told", "said"),
    [
        ({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}, {}, "freq_base of 10000, .*500000;"),
        ({"full_attention": LINEAR}, {"freq_base": 1e6}, r"scaling\.factor of 1, .* 8; use a newer llama"),
        (LINEAR, {"freq_base": 1e5, "scaling.factor": 8.0}, "freq_base of 100000, "),
        (
            {"full_attention": LINEAR, "sliding_attention": {"rope_theta": 5e4}},
            {"freq_base": 1e6, "scaling.factor": 8.0},
            "freq_base_swa of 10000, .* 50000;",
        ),
        ({"sliding_attention": {"rope_theta": 5e4}}, {}, "freq_base_swa of 10000, "),
        ({**LINEAR, "rope_type": "yarn"}, {"freq_base": 1e6, "scaling.factor": 4.0}, r"factor of 4, .* 8;"),
    ],
)
def test_a_file_of_a_script_that_knew_no_rope_parameters_is_refused(rope, told, said):
    metadata = {"general.architecture": "of", **{f"of.rope.{name}": value for name, value in told.items()}}
    with pytest.raises(NotEqual, match=said):
        demand_same_rotations(metadata, SimpleNamespace(rope_parameters=rope))


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
    _lay_vocabulary(made / "tokenizer.model", tokenizer, saved)
    told = json.loads((saved / "tokenizer_config.json").read_text())
    token_id = str(tokenizer.convert_tokens_to_ids(own))
    assert told["added_tokens_decoder"][token_id]["content"] == own
    assert told["add_prefix_space"] is False
    assert (saved / "tokenizer.model").read_bytes() == (made / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("begin", ["<s>", None])
def test_a_space_after_each_special_token_is_told(begin: str | None, tmp_path: Path):
    tokenizer = train_pieces(FAMILIES["mistral"], tmp_path)
    tokenizer.bos_token = begin
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("\u2581")  # as the tokenizer of Llama 2
    tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.save_pretrained(tmp_path / "saved")
    _lay_vocabulary(tmp_path / "tokenizer.model", tokenizer, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["add_prefix_space"] is True
