from __future__ import annotations

from pathlib import Path

from tunewheel_runtime.store import ObjectStore
from tunewheel_train.runs.leftovers import sweep


async def test_what_another_worker_completed_is_deleted_and_nothing_else(tmp_path: Path):
    store, runs = ObjectStore("memory://"), tmp_path / "runs"
    await sweep(store, runs)  # before the first run
    for name in ("run-done", "run-busy", "run-interrupted", "lost+found"):
        (runs / name / "work").mkdir(parents=True)
        (runs / name / "train.log").write_text("")
    for complete in ("run-done", "run-busy"):
        await store.put(f"runs/{complete}/manifest.json", b"{}")
    await store.put("runs/run-interrupted/checkpoints/checkpoint-000002.0/checkpoint.json", b"{}")
    await sweep(store, runs, busy={"run-busy"})
    assert sorted(path.name for path in runs.iterdir()) == ["lost+found", "run-busy", "run-interrupted"]
