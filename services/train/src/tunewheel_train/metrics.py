"""The metrics of the train service (``runtime.metrics``), some of them reported by its training processes."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from tunewheel_runtime import metrics

from tunewheel_train.progress import Completed, Message, Progressed

COUNTERS: Mapping[str, str] = {
    "tokens": "Tokens that completed runs trained on, padding excluded",
    "processes.died": "Training processes that died, or were killed as they gave no sign of life",
}
LABELS: Mapping[str, str] = {"tokens": "project"}


class Metrics(metrics.Metrics):
    def __init__(self, meter: Meter) -> None:
        super().__init__(meter, "train", COUNTERS, labels=LABELS)
        self._latest: dict[str, Progressed] = {}
        """By run that is under way: its latest progress."""
        self.gauge("tokens_per_second", "Tokens a second, by run", self._speeds, label="run")
        self.gauge("memory_bytes", "Memory of the training process, by run", self._memory, label="run")
        self.gauge("gpu_memory_bytes", "Memory taken on its GPUs, by run", self._gpu_memory, label="run")

    def saw(self, message: Message, *, run_id: str, project: str) -> None:
        """Record a message of a training process."""
        if isinstance(message, Progressed):
            self._latest[run_id] = message
        elif isinstance(message, Completed):
            self.add("tokens", message.tokens, of=project)

    def ended(self, run_id: str) -> None:
        """Remove a run from the gauges: no process of this service trains it now."""
        self._latest.pop(run_id, None)

    def _speeds(self) -> dict[str, float]:
        return {run_id: one.tokens_per_second for run_id, one in self._latest.items()}

    def _memory(self) -> dict[str, float]:
        return {name: one.memory_bytes for name, one in self._latest.items() if one.memory_bytes is not None}

    def _gpu_memory(self) -> dict[str, float]:
        found = {run_id: one.gpu_memory_bytes for run_id, one in self._latest.items()}
        return {run_id: taken for run_id, taken in found.items() if taken is not None}
