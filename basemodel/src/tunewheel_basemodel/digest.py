"""SHA-256 of model directories."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tunewheel_contracts.identity import sha256_file

# The files that transformers reads to build a model and its tokenizer. Other files do not change the model.
_MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


def sha256_directory(path: Path) -> str:
    """Return the hex SHA-256 over the names and contents of the model files directly in ``path``.

    Renaming, adding, removing or changing a file changes the hash. The directory's own name does not count,
    so that a copy has the same hash.
    """
    whole = hashlib.sha256()
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _MODEL_SUFFIXES)
    for file in files:
        whole.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return whole.hexdigest()
