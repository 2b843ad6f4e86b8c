from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.tokenizer import open_tokenizer, save_tokenizer

PROBE = "Bike 3071 won't start!\n\n  Überprüfen: 12,5 km \u2013 \u2713 <|im_end|> 🚲 مرحبا"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
ALONE = """
import json, sys
sys.modules["torch"] = None
from pathlib import Path
from tunewheel_basemodel.chat import encode_chat
from tunewheel_basemodel.tokenizer import open_tokenizer, save_tokenizer
save_tokenizer(sys.argv[1], Path(sys.argv[2]))
turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
print(json.dumps(encode_chat(open_tokenizer(Path(sys.argv[2])), turns)))
"""


def test_the_files_alone_tokenize_like_the_model(
    tiny_base: BaseModel, tiny_tokenizer, tmp_path: Path
) -> None:
    save_tokenizer(str(tiny_base.path), tmp_path / "a")
    save_tokenizer(str(tiny_base.path), tmp_path / "b")
    assert sha256_directory(tmp_path / "a") == sha256_directory(tmp_path / "b")
    assert not list((tmp_path / "a").glob("*.safetensors"))
    alone = open_tokenizer(tmp_path / "a")
    assert alone(PROBE).input_ids == tiny_tokenizer(PROBE).input_ids
    assert alone.chat_template == tiny_tokenizer.chat_template
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "a").iterdir())


@pytest.mark.parametrize("name", ["", "../model", "a\0b", "/no/such/directory", "not a name!"])
def test_a_missing_tokenizer_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelNotFound, match="base_model: "):
        save_tokenizer(name, tmp_path / "t")


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelNotFound, match="hub did not give"):
        save_tokenizer("nobody/no-such-model", tmp_path / "t")


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(BaseModelNotFound, match="no readable tokenizer"):
        open_tokenizer(tmp_path)


def test_no_torch_is_needed(tiny_base: BaseModel, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tiny_base.path), str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ids, mask = json.loads(done.stdout)
    assert len(ids) == len(mask)
    assert 0 < sum(mask) < len(mask)


@pytest.mark.model
def test_a_carried_tokenizer_is_the_converted_models(smollm2: BaseModel, tmp_path: Path) -> None:
    save_tokenizer(SMOLLM2, tmp_path / "t")
    alone, whole = open_tokenizer(tmp_path / "t"), open_tokenizer(smollm2.path)
    assert alone(PROBE).input_ids == whole(PROBE).input_ids
    assert alone.get_vocab() == whole.get_vocab()
    assert alone.chat_template == whole.chat_template
    assert (alone.eos_token, alone.pad_token) == (whole.eos_token, whole.pad_token)
