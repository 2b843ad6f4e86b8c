"""Writes runs to an MLflow tracking store. Calls block and raise; the caller handles a store that is down.

Each run is one MLflow run, found again by its tag, in an experiment with the project's name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.formats.recipe import OPERATIONAL
from tunewheel_contracts.formats.run import RunManifest

from tunewheel_train.progress import Progressed
from tunewheel_train.runs.runs import Run

RUN_ID = "tunewheel.run_id"
_FIGURES = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes", "gpu_memory_bytes",
    "validation_loss",
)  # fmt: skip
_AT_ONCE = 100
"""Steps per request: MLflow takes a thousand metrics."""
_LONGEST_TAG = 5_000
# MLflow's defaults (two minutes, seven retries) are longer than the end of a run may wait.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """MLflow's id of a run, and the last step that was sent to it (0: none)."""

    mlflow_id: str
    last_step: int


class MlflowStore:
    """The store at ``uri``, which may hold a password. Every method raises what MLflow raises."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connected: Any = None

    @property
    def _client(self) -> Any:
        if self._connected is None:
            for name, value in _PATIENCE.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            self._connected = MlflowClient(tracking_uri=self._uri)
        return self._connected

    def open(self, run: Run) -> Tracked:
        """Find the run, or create it with its recipe as parameters and its origin as tags."""
        from mlflow.entities import Param, RunTag

        experiment = self._experiment(run.project)
        found = self._client.search_runs(
            [experiment], f"tags.`{RUN_ID}` = '{run.run_id}'", order_by=["attributes.start_time ASC"]
        )
        tracked = found[0] if found else self._client.create_run(
            experiment, tags={RUN_ID: run.run_id}, run_name=run.model_id
        )  # fmt: skip
        mlflow_id = tracked.info.run_id
        recipe = run.recipe.model_dump(mode="json", exclude=set(OPERATIONAL))
        self._client.log_batch(
            mlflow_id,
            params=[Param(name, value) for name, value in flat(recipe).items()],
            tags=[RunTag(name, value) for name, value in _origin(run).items()],
        )
        self._client.update_run(mlflow_id, status="RUNNING")
        steps = [point.step for point in self._client.get_metric_history(mlflow_id, "loss")]
        return Tracked(mlflow_id, max(steps, default=0))

    def log(self, mlflow_id: str, steps: Sequence[Progressed]) -> None:
        """Add the figures of ``steps``."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        for start in range(0, len(steps), _AT_ONCE):
            figures = [
                Metric(name, float(value), now, step.step)
                for step in steps[start : start + _AT_ONCE]
                for name in _FIGURES
                if (value := getattr(step, name)) is not None
            ]
            self._client.log_batch(mlflow_id, metrics=figures)

    def completed(self, mlflow_id: str, manifest: RunManifest) -> None:
        """End the run with its manifest as artifact and the manifest's metrics as ``final.…``."""
        self._client.log_text(mlflow_id, manifest.model_dump_json(indent=1), "manifest.json")
        self.measured(mlflow_id, manifest.metrics, manifest.steps)

    def measured(self, mlflow_id: str, metrics: Mapping[str, float], steps: int) -> None:
        """End the run with ``metrics`` as ``final.…``. A run of a sweep may be opened again."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        final = [Metric(f"final.{name}", value, now, steps) for name, value in metrics.items()]
        self._client.log_batch(mlflow_id, metrics=final)
        self._client.set_terminated(mlflow_id, "FINISHED")

    def failed(self, mlflow_id: str, reason: str) -> None:
        """End the run with ``reason`` as the tag ``tunewheel.failure``."""
        self._client.set_tag(mlflow_id, "tunewheel.failure", reason[:_LONGEST_TAG])
        self._client.set_terminated(mlflow_id, "FAILED")

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another worker was faster, or the store is down
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)


def _origin(run: Run) -> dict[str, str]:
    return {
        "tunewheel.model_id": run.model_id,
        "tunewheel.dataset_id": run.dataset_id,
        "tunewheel.dataset_sha256": run.dataset.sha256,
        "tunewheel.criteria_sha256": run.criteria_sha256,
        "tunewheel.base_model": run.base.name,
        "tunewheel.base_revision": run.base.revision,
    } | ({"tunewheel.sweep_id": run.tried.sweep_id} if run.tried else {})


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return ``{"a": {"b": 1}}`` as ``{"a.b": "1"}``, without values that are None."""
    found: dict[str, str] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = str(value)
    return found
