from __future__ import annotations

from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_train.metrics import Metrics
from tunewheel_train.progress import Completed, Progressed
from tunewheel_train.settings import Settings


def test_what_a_training_process_says_is_told_until_it_ends() -> None:
    telemetry = make_telemetry("train", None)
    metrics = Metrics(telemetry.meter)
    step = Progressed(
        step=1, total_steps=2, epoch=0.5, loss=1.0, learning_rate=1e-3, grad_norm=None,
        tokens_per_second=110.0, eta_seconds=9.0, memory_bytes=5,
    )  # fmt: skip
    done = Completed(
        steps=2, tokens=700, wall_seconds=9.0, dtype="float32", metrics={}, versions={}
    )  # fmt: skip
    metrics.saw(step, run_id="run-1", project="desk")
    metrics.saw(done, run_id="run-1", project="desk")
    text = telemetry.metrics_text()
    assert 'tunewheel_train_tokens_per_second{service="train",run="run-1"} 110.0' in text
    assert 'tunewheel_train_memory_bytes{service="train",run="run-1"} 5' in text
    assert "gpu_memory_bytes{" not in text
    assert 'tunewheel_train_tokens_total{service="train",project="desk"} 700' in text
    assert 'tunewheel_train_processes_died_total{service="train"} 0' in text
    metrics.ended("run-1")
    assert 'run="run-1"' not in telemetry.metrics_text()


def test_the_grace_of_the_service_includes_a_last_checkpoint() -> None:
    assert Settings(stop_seconds=300).grace_seconds == 400
