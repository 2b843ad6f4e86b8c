"""llama.cpp's programs write GGUF. What is missing, and what they refuse, is named."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_train.data.datasets import encode_examples
from tunewheel_train.errors import NotEqual, NotExported
from tunewheel_train.exporting import merging
from tunewheel_train.exporting.gguf import Programs, find_programs, write_gguf
from tunewheel_train.exporting.merging import GGUF_TOLERANCE, Form, Trained, export_merged
from tunewheel_train.model.modeling import load_tokenizer

LLAMA_CPP = os.environ.get("TUNEWHEEL_LLAMA_CPP")
real = pytest.mark.skipif(LLAMA_CPP is None, reason="TUNEWHEEL_LLAMA_CPP names no folder of llama.cpp")


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


FAMILIES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
}
"""Configuration and class."""


@pytest.fixture(scope="module")
def small(smollm2: BaseModel, tmp_path_factory: pytest.TempPathFactory):
    """Write a small random model of a family. Its rows are multiples of 256, as K-quants demand. Its
    tokenizer is SmolLM2's, which llama.cpp knows."""

    def of(family: str) -> Trained:
        import transformers

        if family == "smollm2":
            return Trained(family, smollm2, smollm2.path, whole=True)
        config, model = FAMILIES[family]
        tokenizer = load_tokenizer(smollm2)
        shape = getattr(transformers, config)(
            vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.1, tie_word_embeddings=True,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = getattr(transformers, model)(shape)
        path = tmp_path_factory.mktemp(family)
        made.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return Trained("desk", locate_base_model(str(path), cache_dir=path), path, whole=True)

    return of


@pytest.fixture
def prompts_of(conversation_of):
    """Return the prompts of 20 examples in the tokens of a model."""

    def of(trained: Trained) -> list[tuple[int, ...]]:
        rows = [conversation_of(number) for number in range(20)]
        return [
            one.input_ids for one in encode_examples(rows, load_tokenizer(trained.base), max_tokens=256)[0]
        ]

    return of


def form(encoding) -> Form:
    sources = Path(LLAMA_CPP or "")
    if encoding == "q4_k_m" and not (shutil.which("llama-quantize") or (sources / "build").is_dir()):
        pytest.skip("llama-quantize is not built")
    return Form(gguf=encoding, programs=find_programs(sources, encoding), system="Answer in JSON.")


@real
@pytest.mark.nightly("gguf")
@pytest.mark.parametrize(
    ("family", "encoding"),
    [
        *[("smollm2", encoding) for encoding in ("float16", "q8_0", "q4_k_m")],
        ("llama", "float16"),
        ("llama", "q4_k_m"),
        ("mistral", "float16"),
    ],
)
def test_a_file_answers_as_the_model(small, prompts_of, tmp_path: Path, family, encoding):
    trained = small(family)
    parity = export_merged(trained, tmp_path / "out", prompts=prompts_of(trained), form=form(encoding))
    assert parity.mean_difference <= GGUF_TOLERANCE[encoding]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.gguf", "Modelfile"}
    told = read_metadata(tmp_path / "out" / "model.gguf")
    assert told["general.architecture"] == "llama"  # Mistral's too
    assert told["tokenizer.ggml.pre"] == "smollm"
    assert 'SYSTEM """Answer in JSON."""' in (tmp_path / "out" / "Modelfile").read_text()


@real
@pytest.mark.nightly("gguf")
def test_a_file_that_answers_otherwise_is_refused(small, prompts_of, tmp_path: Path, monkeypatch):
    original = merging._merged

    def spoilt(*arguments):
        model = original(*arguments)
        model.get_input_embeddings().weight.data += 0.5
        return model

    monkeypatch.setattr(merging, "_merged", spoilt)
    trained = small("llama")
    with pytest.raises(NotEqual, match=r"differ from the adapter's by \d"):
        export_merged(trained, tmp_path / "out", prompts=prompts_of(trained), form=form("float16"))
    assert list(tmp_path.iterdir()) == []
