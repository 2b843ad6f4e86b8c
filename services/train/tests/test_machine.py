from __future__ import annotations

import pytest
from tunewheel_train.machine import memory_limit, nearest, peak_bytes, present_bytes, this_device


@pytest.mark.parametrize(
    ("driver", "gib", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-80"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40"),
        ("NVIDIA A100 80GB PCIe", 79.2, "a100-80"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090"),
        ("Tesla T4", 14.6, "t4"),
        ("NVIDIA L40S", 44.5, "l40s"),
    ],
)
def test_a_card_is_found_by_its_drivers_name(driver: str, gib: float, name: str):
    found = nearest(driver, gib)
    assert (found.name, found.memory_gib) == (name, gib)
    assert found.dollars_per_hour is not None


def test_an_unknown_card_keeps_its_name_and_has_no_price():
    found = nearest("NVIDIA GeForce RTX 3060", 12.0)
    assert found.name == "NVIDIA GeForce RTX 3060"
    assert found.dollars_per_hour is None
    assert found.teraflops > 0


def test_the_processor_at_hand_is_a_device():
    found = this_device("float32")
    if found.kind == "cuda":
        pytest.skip("this machine has a GPU")
    assert found.name == "cpu"
    assert found.teraflops > 0
    assert 0 < found.memory_bytes <= memory_limit() + 1


def test_memory_is_counted_in_bytes():
    assert (64 << 20) < present_bytes() <= peak_bytes() * 1.05
