"""Static embeddings of real token vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tunewheel_embedding.static import Projection, StaticEmbedder, packaged_model, unit_length


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder()


def test_like_texts_lie_closer_than_unlike_ones(embedder: StaticEmbedder):
    texts = ["my bike battery is broken", "the battery of the bicycle died", "file an inheritance tax return"]
    bike, same, tax = unit_length(embedder.embed(texts))
    assert bike @ same > bike @ tax


def test_common_words_weigh_little(embedder: StaticEmbedder):
    bare, wordy = unit_length(embedder.embed(["battery", "the battery of the and"]))
    assert bare @ wordy > 0.9


def test_a_text_alone_embeds_as_in_a_batch(embedder: StaticEmbedder):
    texts = ["one", "a much longer text about solar panels on the roof", "three"]
    together = embedder.embed(texts)
    assert together.shape == (3, 384)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row)


def test_an_embedder_is_named_by_its_files(embedder: StaticEmbedder, tmp_path: Path):
    assert embedder.name == StaticEmbedder().name
    assert (embedder.name[:7], embedder.dimensions) == ("static-", 384)
    for file in packaged_model().glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert StaticEmbedder(tmp_path).name == embedder.name
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert StaticEmbedder(tmp_path).name != embedder.name


def test_units_have_length_one(embedder: StaticEmbedder):
    np.testing.assert_allclose(np.linalg.norm(embedder.units(["a bell", ""]), axis=1), [1.0, 0.0])


def test_a_text_without_tokens_is_zero_and_stays_so(embedder: StaticEmbedder):
    vectors = embedder.embed(["", "   ", "word"])
    assert not vectors[:2].any()
    assert not Projection.fit(vectors).apply(vectors)[:2].any()


def test_the_projection_removes_the_common_component_and_scales(embedder: StaticEmbedder):
    vectors = embedder.embed([f"the number {n} of the list" for n in range(30)])
    cleaned = Projection.fit(vectors).apply(vectors)
    np.testing.assert_allclose(np.linalg.norm(cleaned, axis=1), 1.0)
    assert abs(unit_length(cleaned).mean(axis=0) @ Projection.fit(vectors).component) < 1e-9


def test_nothing_of_torch_is_loaded():
    code = (
        "import sys; from tunewheel_embedding.static import StaticEmbedder; "
        "StaticEmbedder().embed(['x']); "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch is loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
