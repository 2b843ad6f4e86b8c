"""The sentence encoder with its packaged weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import packaged_model

TEXTS = ["my bike battery is broken", "the accumulator of the bicycle died", "file an inheritance tax return"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEmbedder:
    return SentenceEmbedder()


def test_the_order_of_words_counts(encoder: SentenceEmbedder):
    one, other = encoder.units(["does the dog bite the man", "does the man bite the dog"])
    assert one @ other < 0.999


def test_what_means_the_same_lies_near_in_other_words(encoder: SentenceEmbedder):
    bike, same, tax = encoder.units(TEXTS)
    assert bike @ same > bike @ tax + 0.2


def test_a_text_alone_embeds_as_in_a_batch_with_longer_ones(encoder: SentenceEmbedder):
    texts = [*TEXTS, "word " * 300, "", "one"]
    together = encoder.units(texts)
    assert together.shape == (6, 384) == (6, encoder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0)
    for row, text in list(zip(together, texts, strict=True))[3:5]:
        np.testing.assert_allclose(encoder.units([text])[0], row, atol=1e-5)


def test_no_text_has_no_vector(encoder: SentenceEmbedder):
    assert encoder.units([]).shape == (0, 384)


def test_text_from_strangers_has_vectors_like_any_other(encoder: SentenceEmbedder):
    strange = ["\ufdfa" * 5_000, "\x00\ud7ff\U0010ffff", "\u202e" * 90, "a" * 100_000]
    assert np.isfinite(encoder.units(strange)).all()


@pytest.mark.model
def test_it_computes_what_the_model_does_in_torch(encoder: SentenceEmbedder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = str(packaged_model())
    read = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        rows = transformers.AutoModel.from_pretrained(folder)(**read).last_hidden_state
    is_token = read["attention_mask"][..., None]
    means = ((rows * is_token).sum(1) / is_token.sum(1)).numpy()
    cosines = (encoder.units(TEXTS) * means).sum(axis=1) / np.linalg.norm(means, axis=1)
    assert cosines.min() > 0.99999


def test_its_name_tells_its_files_apart(encoder: SentenceEmbedder, tmp_path: Path):
    assert encoder.name == SentenceEmbedder().name
    assert encoder.name.startswith("minilm-")
    for file in ("model.safetensors", "tokenizer.json"):
        (tmp_path / file).write_bytes(b"other")
    assert SentenceEmbedder(tmp_path).name != encoder.name


def test_it_needs_no_torch():
    code = (
        "import sys; from tunewheel_embedding.sentence import SentenceEmbedder;"
        "SentenceEmbedder().units(['x']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
