from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from tunewheel_planner.devices import catalogue, read_catalogue
from tunewheel_train.errors import RunFailed
from tunewheel_train.model.machine import (
    demand_gpus,
    device_facts,
    gpu_bytes,
    memory_limit,
    nearest,
    peak_bytes,
    present_bytes,
    this_device,
)
from tunewheel_train.settings import Settings


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
    found = nearest(driver, gib, catalogue())
    assert (found.name, found.memory_gib) == (name, gib)
    assert found.dollars_per_hour is not None


def test_an_unknown_card_keeps_its_name_and_has_no_price():
    found = nearest("NVIDIA GeForce RTX 3060", 12.0, catalogue())
    assert found.name == "NVIDIA GeForce RTX 3060"
    assert found.dollars_per_hour is None
    assert found.teraflops > 0


def test_cards_of_ones_own_are_found_by_their_names(tmp_path: Path):
    told = {"kind": "cuda", "memory_gib": 10, "teraflops": 50, "dollars_per_hour": [0.1, 0.2]}
    cards = [{"name": "workstation", **told}, {"name": "rtx-3060", **told}]
    (tmp_path / "mine.json").write_text(json.dumps({"as_of": "2031-02-03", "about": "", "devices": cards}))
    known = read_catalogue(tmp_path / "mine.json")
    assert nearest("NVIDIA GeForce RTX 3060", 12.0, known).dollars_per_hour == (0.1, 0.2)
    assert Settings(devices=tmp_path / "mine.json").devices == tmp_path / "mine.json"


def test_a_broken_file_of_cards_stops_the_service_at_its_start(tmp_path: Path):
    (tmp_path / "none.json").write_text('{"as_of": "2031-02-03", "about": "", "devices": []}')
    with pytest.raises(ValidationError, match="names no device"):
        Settings(devices=tmp_path / "none.json")
    with pytest.raises(ValidationError, match=r"absent\.json cannot be read"):
        Settings(devices=tmp_path / "absent.json")


def test_the_processor_at_hand_is_a_device():
    found = this_device("float32", catalogue())
    if found.kind == "cuda":
        pytest.skip("this machine has a GPU")
    assert found.name == "cpu"
    assert found.teraflops > 0
    assert 0 < found.memory_bytes <= memory_limit() + 1


def test_a_plan_has_the_free_memory_of_a_card_that_others_use_too(monkeypatch):
    import torch

    properties = type("Properties", (), {"name": "NVIDIA A100-SXM4-80GB", "total_memory": 80 << 30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (27 << 30, 80 << 30))
    found = this_device("bfloat16", catalogue())
    assert (found.name, found.memory_bytes) == ("a100-80", 27 << 30)


def test_memory_is_counted_in_bytes():
    import torch

    if torch.cuda.is_available():
        assert gpu_bytes() == torch.cuda.memory_allocated()
        return
    assert (64 << 20) < present_bytes() <= peak_bytes() * 1.05
    assert gpu_bytes() is None


def test_on_a_gpu_the_context_and_the_gaps_are_counted_as_a_plan_counts_them(monkeypatch):
    import torch

    mib = 1 << 20
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 700 * mib)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1000 * mib)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 900 * mib)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14_600 * mib, 16_000 * mib))
    assert peak_bytes() == (1000 + 500) * mib  # of 1,400 in use 900 are PyTorch's


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a GPU")
def test_a_gpu_that_was_asked_for_and_does_not_come_up_is_told_with_its_versions():
    import torch

    demand_gpus("")
    assert device_facts() == ("cpu", None, None)
    with pytest.raises(RunFailed) as caught:
        demand_gpus("0")
    assert caught.value.field == "(device)"
    assert "GPU 0 (TUNEWHEEL_TRAIN_GPUS" in caught.value.reason
    assert f"CUDA {torch.version.cuda}, which needs driver 580 or newer" in caught.value.reason


def test_only_gpus_that_were_named_are_asked_for(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = [Settings(train_gpus=named).asked_gpus for named in ("", " ", "-1", "0,1", "GPU-6, 7,")]
    assert asked == ["", "", "", "0,1", "GPU-6, 7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert Settings().asked_gpus == "3"
