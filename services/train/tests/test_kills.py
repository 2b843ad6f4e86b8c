"""kill -9 at eleven points of a run: what is started afterwards ends with the same weights."""

from __future__ import annotations

import runpy
import signal
from pathlib import Path

import pytest
import torch
from tunewheel_train.progress import Completed, parse

pytestmark = pytest.mark.chaos
POINTS = tuple(runpy.run_path(str(Path(__file__).with_name("forge.py")))["POINTS"])


def last_word(job_file: Path):
    return parse(Path(f"{job_file}.0.out").read_bytes().splitlines()[-1])


WRITING = "checkpoint being written, training goes on"


def test_there_are_eleven_points():
    assert len(POINTS) == 11


@pytest.mark.parametrize(
    "point",
    [
        WRITING,
        *(pytest.param(point, marks=pytest.mark.nightly("kills")) for point in POINTS if point != WRITING),
    ],
)
def test_a_run_killed_at_any_point_ends_with_the_same_weights(trained, case, forge, tmp_path: Path, point):
    run = case()
    job_file = tmp_path / "job.json"
    job_file.write_text(run.job.model_dump_json())
    assert forge(job_file, point=point) == [-signal.SIGKILL]
    assert not isinstance(last_word(job_file), Completed)
    assert forge(job_file) == [0]
    assert [path.name for path in run.job.work_dir.glob(".*")] == [".lock"]
    outcome = last_word(job_file)
    assert isinstance(outcome, Completed)
    expected, uninterrupted = trained("lora")
    assert outcome.tokens == uninterrupted.tokens
    assert all(torch.equal(value, run.weights()[name]) for name, value in expected.weights().items())
    assert {p.name for p in run.job.output_dir.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tunewheel.json",
    }  # fmt: skip
