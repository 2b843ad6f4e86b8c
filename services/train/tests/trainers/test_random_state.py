"""Random sequences go on where they were, the GPU's too; a GPU is played by a tensor."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from tunewheel_train.trainers.random_state import random_state, restore_random_state


class Gpu:
    """Takes the place of ``torch.cuda``'s generator."""

    def __init__(self) -> None:
        self.state = torch.arange(16, dtype=torch.uint8)
        self.seeded: list[int] = []

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state

    def manual_seed(self, seed: int) -> None:
        self.seeded.append(seed)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: gpu.state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", gpu.set_rng_state)
    monkeypatch.setattr(torch.cuda, "manual_seed", gpu.manual_seed)
    monkeypatch.setattr(torch.cuda, "initial_seed", lambda: 17)
    return gpu


def kept() -> dict[str, Any]:
    return json.loads(json.dumps(random_state()))


def drawn() -> tuple[float, float]:
    return random.random(), float(torch.rand(()))


def test_the_next_numbers_are_those_that_would_have_come() -> None:
    state = kept()
    expected = drawn()
    drawn()
    restore_random_state(state)
    assert drawn() == expected


def test_the_gpus_sequence_is_kept_too(gpu: Gpu) -> None:
    state, expected = kept(), gpu.state
    gpu.state = torch.zeros(16, dtype=torch.uint8)
    restore_random_state(state)
    assert torch.equal(gpu.state, expected)
    assert not gpu.seeded


def test_other_processes_draw_other_numbers(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    state = kept()
    monkeypatch.setenv("RANK", "2")
    restore_random_state(state)
    assert gpu.seeded == [19]


def test_a_checkpoint_of_a_machine_with_a_gpu_is_taken_without_one(gpu: Gpu) -> None:
    state = kept()
    torch.cuda.is_available = lambda: False
    restore_random_state(state)
    assert not gpu.seeded
