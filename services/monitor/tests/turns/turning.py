"""Events of one turn of project ``desk``, an hour apart, and scored traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import DriftResolved, InferenceScored
from tunewheel_contracts.events.production import DriftCluster, DriftDetected, DriftWindow, RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainStarted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetCounts
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, Role
from tunewheel_contracts.formats.serving import RouteRole

SHA = "0" * 64
START = datetime(2026, 3, 1, tzinfo=UTC)
REF = ArtifactRef(path="x.json", sha256=SHA, size_bytes=1)
ADAPTER = AdapterRef(
    model_id="desk-2", path="adapters/desk-2", files=(), base=BaseModelRef(name="org/tiny", revision="r"),
    method="lora",
)  # fmt: skip
CLUSTER = DriftCluster(prompts=40, share=0.2, centroid=(1.0, 0.0), radius=0.3)


@dataclass
class Story:
    """Tells events of ``desk`` one after the other."""

    hour: int = 0
    told: list[Envelope[Any]] = field(default_factory=list[Any])

    def tell(self, data: Any, *, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        self.hour += 1
        event = new_event(data, source="/test", cause=cause, time=START + timedelta(hours=self.hour))
        self.told.append(event)
        return event

    def alarm(
        self, alarm_id: str = "alarm-1", *, cluster: DriftCluster | None = CLUSTER, **changes: Any
    ) -> Envelope[Any]:
        window = DriftWindow(
            first_completion_id="a", last_completion_id="b", completions=100, started_at=START, ended_at=START
        )
        values: dict[str, Any] = {
            "project": "desk", "detector": "input", "statistic_name": "e", "statistic": 9.0,
            "p_value": 0.001, "threshold": 0.01, "dataset_id": "ds-1", "model_id": "desk-1",
            "window": window, "alarm_id": alarm_id, "signal": "clusters",
            "cluster": cluster,
        }  # fmt: skip
        return self.tell(DriftDetected(**(values | changes)))

    def resolved(self, alarm_id: str = "alarm-1") -> Envelope[Any]:
        at = START + timedelta(hours=self.hour + 1)
        return self.tell(
            DriftResolved(
                project="desk",
                alarm_id=alarm_id,
                detector="clusters",
                dataset_id="ds-2",
                model_id="desk-2",
                reason="covered",
                raised_at=START,
                resolved_at=at,
            )
        )

    def request(self, name: str = "r-1", **changes: Any) -> Envelope[Any]:
        values = {"reason": BuildReason.DRIFT, "request": name, "records_upto": {"0": 9}}
        return self.tell(DatasetRequested(project="desk", **(values | changes)))

    def version(self, request: Envelope[Any], dataset_id: str = "ds-2", examples: int = 150) -> Envelope[Any]:
        counts = DatasetCounts(records=examples, examples=examples, train=examples, holdout=0)
        data = DatasetVersioned(
            project="desk", dataset_id=dataset_id, manifest=REF, spec_sha256=SHA, criteria_sha256=SHA,
            base_model="org/tiny", counts=counts, funnel=(),
            previous="ds-1" if dataset_id != "ds-1" else None,
        )  # fmt: skip
        return self.tell(data, cause=request)

    def refused(self, request: Envelope[Any]) -> Envelope[Any]:
        data = DatasetRejected(project="desk", spec_sha256=SHA, rows_sha256=SHA, reasons=("too few",))
        return self.tell(data, cause=request)

    def trained(self, dataset_id: str = "ds-2", model_id: str = "desk-2") -> Envelope[Any]:
        data = TrainCompleted(
            project="desk", run_id=f"run-{dataset_id}", dataset_id=dataset_id, dataset=REF, manifest=REF,
            criteria_sha256=SHA, adapter=ADAPTER.model_copy(update={"model_id": model_id}), final_loss=1.0,
            tokens=10, wall_seconds=1_800.0,
        )  # fmt: skip
        return self.tell(data)

    def started(self) -> Envelope[Any]:
        data = TrainStarted(
            project="desk", run_id="run-ds-2", dataset_id="ds-2", base=ADAPTER.base, method="lora",
            total_steps=10,
        )  # fmt: skip
        return self.tell(data)

    def train_failed(self, *, superseded_by: str | None = None) -> Envelope[Any]:
        data = TrainFailed(
            project="desk", run_id="run-ds-2", dataset_id="ds-2", field="base_model", reason="is away",
            superseded_by=superseded_by,
        )  # fmt: skip
        return self.tell(data)

    def verdict(self, kind: type[EvalPassed | EvalFailed | EvalUndecided] = EvalPassed) -> Envelope[Any]:
        values: dict[str, Any] = {
            "project": "desk", "run_id": "run-ds-2", "dataset_id": "ds-2", "dataset": REF,
            "adapter": ADAPTER, "scorecard": REF, "criteria_sha256": SHA, "checks": (),
            "contestants": (
                Contestant(role=Role.CHAMPION, model_id="desk-1", metrics={"label_accuracy": 0.5}),
                Contestant(role=Role.CANDIDATE, model_id="desk-2", metrics={"label_accuracy": 0.7}),
            ),
        }  # fmt: skip
        return self.tell(kind(**values, **({} if kind is EvalPassed else {"reasons": ("is .4",)})))

    def moved(self, to: Stage, reason: str = "as told", **changes: Any) -> Envelope[Any]:
        data = ModelPromoted(
            project="desk", model_id="desk-2", from_stage=Stage.EVALUATED, to_stage=to,
            cause=f"c{self.hour}", reason=reason, **changes,
        )  # fmt: skip
        return self.tell(data)

    def undecided_in_trial(self, reason: str) -> Envelope[Any]:
        """Judge a candidate in a canary again, because the champion changed meanwhile."""
        self.verdict()
        self.moved(Stage.CANARY)
        self.verdict(EvalUndecided)
        return self.moved(Stage.RETIRED, reason, decided_by="criteria")

    def rolled_back(self, **changes: Any) -> Envelope[Any]:
        data = ModelRolledback(
            project="desk", model_id="desk-2", from_stage=Stage.CANARY, restored="desk-1", cause="c",
            reason="10 % invalid", **changes,
        )  # fmt: skip
        return self.tell(data)

    def judged(self) -> Envelope[Any]:
        data = RolloutJudged(
            project="desk", model_id="desk-2", stage="canary", generation=3, verdict="passed", requests=50,
            candidate={}, champion={}, reasons=(),
        )  # fmt: skip
        return self.tell(data)

    def until_production(self) -> None:
        """From the alarm to the new version in production."""
        self.alarm()
        request = self.request()
        self.version(request)
        self.trained()
        self.verdict()
        self.judged()
        self.moved(Stage.PRODUCTION)


def scored(n: int, **changes: Any) -> InferenceScored:
    values: dict[str, Any] = {
        "project": "desk", "completion_id": f"c-{n}", "scored": f"s-{n}", "model_id": "desk-1",
        "role": RouteRole.PRODUCTION, "at": START, "novel": False, "format_valid": True,
    }  # fmt: skip
    return InferenceScored(**(values | changes))
