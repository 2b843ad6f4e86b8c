"""Runs told to a real MLflow store in a directory, and to stores that are away."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.formats.recipe import PreferenceSpec
from tunewheel_train.progress import Progressed
from tunewheel_train.runs.mlflow_store import MlflowStore, Tracked, flat
from tunewheel_train.runs.tracking import MOST_STEPS, Tracker
from tunewheel_train.settings import Settings


def step(number: int) -> Progressed:
    return Progressed(
        step=number, total_steps=6, epoch=number / 6, loss=1 / number, learning_rate=1e-3, grad_norm=None,
        tokens_per_second=40.0, eta_seconds=1.0, memory_bytes=7,
    )  # fmt: skip


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import mlflow.tracking  # noqa: F401  - a run waits for its tracker some seconds, for this import too

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlflow").as_uri()


class Told:
    """What an MLflow store in a directory holds of the only run."""

    def __init__(self, uri: str, project: str = "helpdesk") -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(project)
        assert experiment is not None
        (self.run,) = self.client.search_runs([experiment.experiment_id])

    def steps(self, name: str) -> list[int]:
        return [point.step for point in self.client.get_metric_history(self.run.info.run_id, name)]

    def artifact(self, name: str) -> str:
        local = Path(self.run.info.artifact_uri.removeprefix("file://"))
        return (local / name).read_text()


async def test_a_run_is_told_with_its_recipe_its_origin_its_steps_and_its_manifest(bench, uri):
    made = await bench()
    made.settings = made.settings.model_copy(
        update={"mlflow_tracking_uri": Settings(mlflow_tracking_uri=uri).mlflow_tracking_uri}
    )
    outcome = await made.train()
    told = Told(uri)
    assert told.run.info.status == "FINISHED"
    assert told.steps("loss") == told.steps("learning_rate") == [1, 2, 3, 4, 5, 6]
    assert told.run.data.params["rank"] == "4"
    assert "priority" not in told.run.data.params
    tags = told.run.data.tags
    assert tags["tunewheel.run_id"] == outcome.run_id
    assert tags["tunewheel.dataset_sha256"] == outcome.dataset.sha256
    assert told.artifact("manifest.json").encode() == await made.store.get(outcome.manifest)
    assert told.run.data.metrics["final.final_loss"] == 0.5


async def test_a_run_that_is_resumed_goes_on_in_the_same_run_and_tells_no_step_twice(a_run, uri):
    first = Tracker(a_run, MlflowStore(uri))
    for number in (1, 2, 3, 3):
        first.saw(step(number))
    await first.failed("(run): was cancelled")
    assert Told(uri, "p").run.info.status == "FAILED"
    second = Tracker(a_run, MlflowStore(uri))
    for number in (3, 4):
        second.saw(step(number))
    await second.failed("train.learning_rate: made the loss diverge")
    told = Told(uri, "p")
    assert told.steps("loss") == [1, 2, 3, 4]
    assert told.steps("memory_bytes") == [1, 2, 3, 4]
    assert told.run.data.tags["tunewheel.failure"] == "train.learning_rate: made the loss diverge"


class Away:
    def open(self, run: Any) -> Tracked:
        raise ConnectionError("http://ml:secret@host/api refused")

    log = completed = failed = open


async def test_a_store_that_is_away_is_said_once_without_its_password_and_harms_no_run(bench, monkeypatch):
    monkeypatch.setattr("tunewheel_train.execution.MlflowStore", lambda uri: Away())
    made = await bench()
    made.settings = made.settings.model_copy(
        update={"mlflow_tracking_uri": Settings(mlflow_tracking_uri="http://x").mlflow_tracking_uri}
    )
    with capture_logs() as logs:
        outcome = await made.train()
    assert outcome.final_loss == 0.5
    (warning,) = [entry for entry in logs if entry["event"] == "run_not_tracked"]
    assert warning["reason"] == "ConnectionError: http://host/api refused"


async def test_a_store_that_does_not_answer_is_not_waited_for(a_run):
    answer = threading.Event()

    class Silent(Away):
        def open(self, run: Any) -> Tracked:
            answer.wait()
            return Tracked("1", 0)

    tracker = Tracker(a_run, Silent(), end_seconds=0.01)
    tracker.saw(step(1))
    with capture_logs() as logs:
        await tracker.failed("(run): was cancelled")
    answer.set()
    assert [entry["reason"] for entry in logs] == ["it does not answer"]


async def test_steps_that_wait_are_bounded_and_told_once_the_store_is_back(a_run):
    class Back:
        steps: list[int] = []

        def open(self, run: Any) -> Tracked:
            return Tracked("1", 0)

        def log(self, mlflow_id: str, steps: list[Progressed]) -> None:
            self.steps += [one.step for one in steps]

        def failed(self, mlflow_id: str, reason: str) -> None: ...

    store: Any = Away()
    tracker = Tracker(a_run, store)
    for number in range(1, MOST_STEPS + 3):
        tracker.saw(step(number))
    tracker._store = Back()  # type: ignore[assignment]
    await tracker.failed("(run): was cancelled")
    assert Back.steps == list(range(3, MOST_STEPS + 3))


def test_a_nested_recipe_is_flat():
    nested = {"rank": 4, "preference": PreferenceSpec().model_dump(mode="json"), "continue_from": None}
    assert flat(nested) == {
        "rank": "4", "preference.method": "dpo", "preference.beta": "0.1",
        "preference.learning_rate": "5e-06", "preference.epochs": "1.0", "preference.alone": "False",
    }  # fmt: skip
