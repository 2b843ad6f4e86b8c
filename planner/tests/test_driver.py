from __future__ import annotations

import re
from pathlib import Path

import pytest
from tunewheel_planner.driver import Driver, cuda_of_torch, least_driver, read_driver

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)"


@pytest.mark.parametrize(("text", "version"), [(CLOSED, "535.183.01"), (OPEN, "580.95.05")])
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "version").write_text(text + "\nGCC version: gcc version 12.2.0\n")
    found = read_driver(tmp_path / "version")
    assert found is not None
    assert found.version == version


def test_nvidia_smi_tells_of_a_machine_whose_kernel_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '580.159.04, NVIDIA H100 80GB HBM3'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read_driver(tmp_path / "absent")
    assert found is not None
    assert (found.version, found.cards) == ("580.159.04", ("NVIDIA H100 80GB HBM3",))
    script.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'; exit 9\n")
    assert read_driver(tmp_path / "absent") is None


def test_each_cuda_needs_a_driver_of_its_own() -> None:
    assert [least_driver(cuda) for cuda in ("13.2", "12.8", "11.8", None, "99.0")] == [580, 525, 450, 0, 0]
    assert not Driver("570.86.15").suffices("13.2")
    assert Driver("570.86.15").suffices("12.8")
    assert Driver("580.65.06").suffices("13.2")


def test_the_cuda_of_the_installed_torch_is_read_without_importing_it() -> None:
    assert re.fullmatch(r"1\d\.\d", cuda_of_torch() or "")
