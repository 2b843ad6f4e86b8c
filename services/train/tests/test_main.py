"""The service's start: subscriptions, held state, and settings without which it refuses to start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_train import one_run
from tunewheel_train.launching.jobs import CONTAINER
from tunewheel_train.main import make_app
from tunewheel_train.settings import Settings

BANNED = (
    "torch", "transformers", "tokenizers", "huggingface_hub", "trl", "peft", "datasets", "accelerate",
    "bitsandbytes", "polars", "numpy", "mlflow",
)  # fmt: skip
START = """
import sys
from importlib.machinery import PathFinder
banned = set(sys.argv[2].split(","))
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in banned else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from tunewheel_train.main import make_app
from tunewheel_train.settings import Settings
import tunewheel_train.one_run
service = make_app(Settings(store_url="memory://", train_job_template=sys.argv[1]))
print(sorted(name for one in service.subscriptions.broker.subscribers for name in one.topic_names))
print(sorted(banned & {name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A Job that runs are made from."""
    pod = {"spec": {"containers": [{"name": CONTAINER, "image": "train"}]}}
    job: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": pod}}
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job))
    return file


def test_an_app_is_made_without_a_broker(tmp_path: Path):
    service = make_app(Settings(store_url=f"file://{tmp_path}/store", cache_dir=tmp_path / "cache"))
    assert service.name == "train"
    subscribed = sorted(name for one in service.subscriptions.broker.subscribers for name in one.topic_names)
    assert subscribed == ["dataset.versioned", "sweep.requested", "train.control", "train.started"]


def test_where_runs_are_jobs_the_service_starts_without_what_trains(template: Path):
    """As in the image train-launcher, where none of it is installed."""
    command = [sys.executable, "-c", START, str(template), ",".join(BANNED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['dataset.versioned', 'sweep.requested', 'train.control', 'train.started']",
        "[]",
    ]


def test_where_runs_are_trained_here_what_trains_is_demanded(template: Path, monkeypatch):
    monkeypatch.setattr("tunewheel_train.settings.find_spec", lambda name: None)
    for make in (make_app, lambda settings: one_run.make_app(settings, "a-launch")):
        with pytest.raises(InvalidSetting, match=r"install tunewheel-train\[worker\]") as refused:
            make(Settings(store_url="memory://"))
        assert refused.value.field == "train_job_template"
    make_app(Settings(store_url="memory://", train_job_template=template))


def test_a_tracker_that_is_not_installed_names_the_setting(monkeypatch):
    monkeypatch.setattr("tunewheel_train.settings.find_spec", lambda name: None if name == "mlflow" else name)
    with pytest.raises(InvalidSetting, match=r"install tunewheel-train\[mlflow\]") as refused:
        make_app(Settings(store_url="memory://", mlflow_tracking_uri=SecretStr("http://localhost:5000")))
    assert refused.value.field == "mlflow_tracking_uri"
