from __future__ import annotations

import pytest
from tunewheel_train.runs.slots import devices_of
from tunewheel_train.settings import Settings


def test_every_slot_has_gpus_of_its_own():
    settings = Settings(train_slots=2, train_processes=2, train_gpus="4,5, GPU-6,7")
    devices = [devices_of(slot, processes=2, gpus=settings.gpus) for slot in range(2)]
    assert devices == [("4", "5"), ("GPU-6", "7")]


def test_slots_have_the_first_gpus_where_none_are_named(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Settings(train_slots=3).gpus == ("0", "1", "2")


def test_what_the_worker_may_see_is_what_its_slots_are_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert Settings(train_slots=2).gpus == ("2", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # none, as CUDA reads it
    assert Settings(train_slots=2).gpus == ("-1",)


def test_more_slots_than_gpus_name_the_settings():
    with pytest.raises(ValueError, match=r"TRAIN_GPUS .* names 3 GPUs, but 2 slots of 2 processes need 4"):
        Settings(train_slots=2, train_processes=2, train_gpus="0,1,2")
