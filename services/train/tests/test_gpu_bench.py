"""The bench for GPUs runs on a processor with tiny shapes, so that it is whole once a GPU is there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[3] / "tests" / "bench" / "gpu.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments], check=False, capture_output=True, text=True
    )


@pytest.mark.nightly("matrices")
def test_a_contender_is_measured_beside_the_plan(tmp_path: Path):
    done = bench("--tiny", "--only", "tiny-lora-sft-ours", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu-tiny.json").read_text())
    assert report["device"]["torch"] == torch.__version__
    (found,) = report["contenders"].values()
    assert found["tokens_per_second"] > 0
    assert found["peak_bytes"] > 0
    assert found["gradients"] == 2 * 2 * 7
    assert found["planned"]["fits"]
    assert report["skipped"] == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_ends_with_a_code_of_its_own(tmp_path: Path):
    done = bench("--out", str(tmp_path))
    assert done.returncode == 3
    assert "no GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_method_whose_package_is_missing_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))
    gpu = importlib.import_module("gpu")
    assert {"1b-full-sft-ours", "8b-qlora-sft-trl", "1b-lora-dpo-ours"} < {
        one.name for one in gpu.contenders(["1b", "8b"])
    }
    monkeypatch.setitem(gpu.NEEDS, "qlora", ("no_such_package",))
    missing = {one.name: one.missing for one in gpu.contenders(["tiny"])}
    assert missing["tiny-qlora-sft-ours"] == ["no_such_package"]
    assert missing["tiny-lora-sft-ours"] == []
