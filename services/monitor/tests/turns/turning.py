"""Events of one turn of project ``desk``, an hour apart, and scored traffic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_testing import story as testing
from tunewheel_testing.adapters import SHA, adapter_of, artifact

START = datetime(2026, 3, 1, tzinfo=UTC)
REF = artifact()
CLUSTER = {"prompts": 40, "share": 0.2, "centroid": (1.0, 0.0), "radius": 0.3}
HASHES = {"spec_sha256": SHA, "criteria_sha256": SHA}


BY_LABEL = {
    "champion": {"bell": 0.9, "horn": 0.8, "solar": 0.0, "water": 0.0},
    "candidate": {"bell": 0.9, "horn": 0.7, "solar": 0.8, "water": 0.0},
}
"""The candidate learns one of two new subjects, and is a little worse by an old one."""


class Story(testing.Story):
    """Tells events of ``desk`` one after the other."""

    every = timedelta(hours=1)

    def __init__(self) -> None:
        super().__init__("desk", START + self.every)

    def alarm(self, alarm_id: str = "alarm-1", **changes: Any) -> Envelope[Any]:
        window = {"first_completion_id": "a", "last_completion_id": "b", "completions": 100}
        values: dict[str, Any] = {
            "detector": "input", "statistic_name": "e", "statistic": 9.0, "p_value": 0.001,
            "threshold": 0.01, "dataset_id": "ds-1", "model_id": "desk-1", "alarm_id": alarm_id,
            "signal": "clusters", "cluster": CLUSTER,
            "window": window | dict.fromkeys(("started_at", "ended_at"), START),
        }  # fmt: skip
        return self.tell("drift.detected", **(values | changes))

    def resolved(self, alarm_id: str = "alarm-1") -> Envelope[Any]:
        return self.tell(
            "drift.resolved", alarm_id=alarm_id, detector="clusters", dataset_id="ds-2", model_id="desk-2",
            reason="covered", raised_at=START, resolved_at=self.now,
        )  # fmt: skip

    def request(self, name: str = "r-1", **changes: Any) -> Envelope[Any]:
        values = {"reason": "drift", "request": name, "records_upto": {"0": 9}}
        return self.tell("dataset.requested", **(values | changes))

    def version(self, request: Envelope[Any], dataset_id: str = "ds-2", examples: int = 150) -> Envelope[Any]:
        counts = dict.fromkeys(("records", "examples", "train"), examples) | {"holdout": 0}
        return self.tell(
            "dataset.versioned", request, dataset_id=dataset_id, manifest=REF, base_model="org/tiny",
            counts=counts, funnel=(), previous="ds-1" if dataset_id != "ds-1" else None, **HASHES,
        )  # fmt: skip

    def refused(self, request: Envelope[Any]) -> Envelope[Any]:
        told = {"spec_sha256": SHA, "rows_sha256": SHA, "reasons": ("too few",)}
        return self.tell("dataset.rejected", request, **told)

    def of_run(self, topic: str, dataset_id: str = "ds-2", **fields: Any) -> Envelope[Any]:
        return self.tell(topic, run_id=f"run-{dataset_id}", dataset_id=dataset_id, **fields)

    def trained(self, dataset_id: str = "ds-2", model_id: str = "desk-2") -> Envelope[Any]:
        return self.of_run(
            "train.completed", dataset_id, dataset=REF, manifest=REF, criteria_sha256=SHA,
            adapter=adapter_of(model_id), final_loss=1.0, tokens=10, wall_seconds=1_800.0,
        )  # fmt: skip

    def started(self) -> Envelope[Any]:
        return self.of_run("train.started", base=adapter_of("desk-2").base, method="lora", total_steps=10)

    def train_failed(self, *, superseded_by: str | None = None) -> Envelope[Any]:
        told = {"field": "base_model", "reason": "is away", "superseded_by": superseded_by}
        return self.of_run("train.failed", **told)

    def verdict(self, topic: str = "eval.passed", requested: tuple[Any, ...] = ()) -> Envelope[Any]:
        accuracies = {"champion": ("desk-1", 0.5), "candidate": ("desk-2", 0.7)}
        contestants = tuple(
            {
                "role": role,
                "model_id": name,
                "metrics": {"label_accuracy": accuracy},
                "by_label": BY_LABEL[role],
            }
            for role, (name, accuracy) in accuracies.items()
        )
        reasons = {} if topic == "eval.passed" else {"reasons": ("is .4",)}
        return self.of_run(
            topic, dataset=REF, adapter=adapter_of("desk-2"), scorecard=REF, criteria_sha256=SHA, checks=(),
            contestants=contestants, requested=requested, **reasons,
        )  # fmt: skip

    def moved(self, to: str, reason: str = "as told", **changes: Any) -> Envelope[Any]:
        told = {"to_stage": to, "cause": f"c{len(self.events)}", "reason": reason} | changes
        return self.tell("model.promoted", model_id="desk-2", from_stage="evaluated", **told)

    def undecided_in_trial(self, reason: str) -> Envelope[Any]:
        """Judge a candidate in a canary again, because the champion changed meanwhile."""
        self.verdict()
        self.moved("canary")
        self.verdict("eval.undecided")
        return self.moved("retired", reason, decided_by="criteria")

    def rolled_back(self, **changes: Any) -> Envelope[Any]:
        told = {"from_stage": "canary", "restored": "desk-1", "cause": "c", "reason": "10 % invalid"}
        return self.tell("model.rolledback", model_id="desk-2", **(told | changes))

    def judged(self) -> Envelope[Any]:
        return self.tell(
            "rollout.judged", model_id="desk-2", stage="canary", generation=3, verdict="passed", requests=50,
            candidate={}, champion={}, reasons=(),
        )  # fmt: skip

    def until_production(self, *requested: dict[str, Any], **alarm: Any) -> None:
        """From the alarm to the new version in production. ``requested``: of its verdict."""
        self.alarm(**alarm)
        request = self.request()
        self.version(request)
        self.trained()
        self.verdict(requested=requested)
        self.judged()
        self.moved("production")


def scored(n: int, **changes: Any) -> InferenceScored:
    values: dict[str, Any] = {
        "project": "desk", "completion_id": f"c-{n}", "scored": f"s-{n}", "model_id": "desk-1",
        "role": RouteRole.PRODUCTION, "at": START, "novel": False, "format_valid": True,
    }  # fmt: skip
    return InferenceScored(**(values | changes))
