"""Saves the state of random generators as JSON, so that dropout is the same after an interruption."""

from __future__ import annotations

import base64
import json
import os
import random
from typing import Any


def random_state() -> dict[str, Any]:
    """Return the states of Python's generator, of PyTorch's, and of this process's GPU, if it has one."""
    import torch

    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "torch_rng": _text(torch.get_rng_state()),
        "cuda_rng": None if gpu is None else _text(gpu),
        "python_rng": json.loads(json.dumps(random.getstate())),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the generators from a state of ``random_state``.

    The state is that of the first process. If several processes train together, the other GPUs are seeded by
    their rank: otherwise all would drop the same units.
    """
    import torch

    torch.set_rng_state(_tensor(state["torch_rng"]))
    version, internal, gauss = state["python_rng"]
    random.setstate((version, tuple(internal), gauss))
    gpu, rank = state.get("cuda_rng"), int(os.environ.get("RANK", "0"))
    if gpu is None or not torch.cuda.is_available():
        return
    torch.cuda.set_rng_state(_tensor(gpu))
    if rank:
        torch.cuda.manual_seed(torch.cuda.initial_seed() + rank)


def _text(state: Any) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> Any:
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).clone()
