from __future__ import annotations

from pathlib import Path

from tunewheel_train.main import make_app
from tunewheel_train.settings import Settings


def test_an_app_is_made_without_a_broker_and_without_torch(tmp_path: Path):
    service = make_app(Settings(store_url=f"file://{tmp_path}/store", cache_dir=tmp_path / "cache"))
    assert service.name == "train"
    assert [s.topic_names for s in service.broker.subscribers] == [["dataset.versioned"]]


def test_runs_lie_below_the_cache_unless_told_otherwise(tmp_path: Path):
    assert Settings(cache_dir=tmp_path).runs_dir == tmp_path / "work" / "train" / "runs"
    assert Settings(cache_dir=tmp_path, work_dir=tmp_path / "w").runs_dir == tmp_path / "w" / "train" / "runs"
