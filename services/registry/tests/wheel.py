"""One project's turn of the wheel, as the log and the object store have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, ErasureCompleted
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ModelCommanded, ModelPromoted, ModelRegistered, Stage
from tunewheel_contracts.events.production import DriftDetected, RolloutJudged
from tunewheel_contracts.formats.dataset import DatasetCounts
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.principal import Principal
from tunewheel_registry.lineage.index import LineageIndex
from tunewheel_registry.lineage.records import RecordFiles
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SHA, artifact
from tunewheel_testing.datasets import parquet, put_dataset, versioned

TEXTS = {"example_id": pl.String, "stage": pl.String}


def row(n: int, *, used: bool = True, kind: str = "ticket") -> dict[str, Any]:
    """The line of record ``n`` in a version's lineage file."""
    return {
        "record_id": f"rec-{n}", "source_event_id": f"event-of-{n}", "source_id": f"source-{n}", "kind": kind,
        "example_id": f"ex-{n}" if used else None, "stage": None if used else "cleaning",
        "reason": None if used else "too_short",
    }  # fmt: skip


@dataclass
class Wheel:
    """Writes what happened; ``index`` has read all of it."""

    desk: Any
    store: ObjectStore
    index: LineageIndex = field(default_factory=LineageIndex)
    log: list[Envelope[Any]] = field(default_factory=list)

    def happened(self, data: Any, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        event = data if isinstance(data, Envelope) else new_event(data, source="/test", cause=cause)
        self.log.append(event)
        self.index.apply(event)
        return event

    @property
    def files(self) -> RecordFiles:
        return RecordFiles(self.store)

    async def dataset(
        self, n: int, rows: list[dict[str, Any]], *, cause: Envelope[Any] | None = None, **changes: Any
    ) -> Envelope[Any]:
        """Store version ``n`` and publish it."""
        folder = f"datasets/ds-{n}"
        lineage = await self.store.put(
            f"{folder}/lineage.parquet",
            parquet(rows, schema_overrides={"example_id": pl.String, "stage": pl.String}),
        )
        used = len({r["record_id"] for r in rows if r["example_id"]})
        counts = DatasetCounts(records=len(rows), examples=used, train=used, holdout=0)
        nothing = artifact(f"{folder}/train.parquet")
        changes = {"train": nothing, "lineage": lineage, "counts": counts, "spec_sha256": SHA} | changes
        version = await put_dataset(self.store, self.desk.spec(), dataset_id=f"ds-{n}", **changes)
        return self.happened(versioned(*version), cause)

    def model(self, n: int, dataset: Envelope[Any], **changes: Any) -> Envelope[Any]:
        """Train model ``n`` on a version, and register it."""
        data = self.desk.trained(n).data.model_copy(update=changes)
        trained = self.happened(new_event(data, source="/test", cause=dataset))
        run = trained.data
        registered = ModelRegistered(
            project="desk", model_id=run.adapter.model_id, kind="adapter", base=run.adapter.base,
            adapter=run.adapter, run_id=run.run_id, dataset_id=run.dataset_id,
        )  # fmt: skip
        return self.happened(registered, trained)

    def reviewed(self, n: int) -> Envelope[Any]:
        """Let two people review model ``n``, one of whom approves it, and eval pass it."""
        verdict: Mapping[str, Any] = dict(self.desk.passed(n).data) | {
            "evaluation_id": f"evaluation-{n}", "review_id": f"review-{n}", "items": 2, "reviewers": 2,
        }  # fmt: skip
        known = {name: value for name, value in verdict.items() if name in ReviewRequested.model_fields}
        asked = self.happened(ReviewRequested(**known))
        for item, reviewer in (("i-1", "Ada"), ("i-2", "Ada"), ("i-2", "Ada"), ("i-1", "Bo")):
            answer = ReviewAnswered(
                project="desk", run_id=f"run-{n}", review_id=f"review-{n}", item_id=item, reviewer=reviewer,
                preference="better", corrected="SECRET", principal=Principal(name=f"{reviewer.lower()}-key"),
            )  # fmt: skip
            self.happened(answer, asked)
        said = self.happened(
            ReviewSubmitted(
                project="desk", run_id=f"run-{n}", reviewer="Ada", verdict="approved", comment="SECRET",
                review_id=f"review-{n}", principal=Principal(name="ada-key"),
            ),
            asked,
        )  # fmt: skip
        passed = self.desk.passed(n, by="ada-key").data
        return self.happened(passed.model_copy(update={"evaluation_id": f"evaluation-{n}"}), said)

    def promoted(self, n: int, cause: Envelope[Any], *, to: Stage = Stage.CANARY) -> Envelope[Any]:
        step = ModelPromoted(
            project="desk", model_id=self.desk.model_id(n), from_stage=Stage.EVALUATED, to_stage=to,
            cause=cause.id, reason="passed",
        )  # fmt: skip
        return self.happened(step, cause)

    def judged(self, n: int) -> Envelope[Any]:
        return self.happened(
            RolloutJudged(
                project="desk", model_id=self.desk.model_id(n), stage="canary", generation=1,
                verdict="passed", requests=30, candidate={}, champion={}, reasons=(),
            )
        )  # fmt: skip

    def commanded(self, n: int) -> Envelope[Any]:
        return self.happened(
            ModelCommanded(
                project="desk", model_id=self.desk.model_id(n), action="retire", reason="too long",
                request="1", principal=Principal(name="cy-key"),
            )
        )  # fmt: skip

    def drifted(self, n: int) -> Envelope[Any]:
        moment = "2026-11-01T00:00:00Z"
        window = {"first_completion_id": "c-1", "last_completion_id": "c-9", "completions": 9,
                  "started_at": moment, "ended_at": moment}  # fmt: skip
        example = {"completion_id": "c-3", "excerpt": "SECRET", "score": 0.5}
        return self.happened(
            DriftDetected.model_validate({
                "project": "desk", "detector": "input", "statistic_name": "mmd", "statistic": 0.3,
                "p_value": 0.01, "threshold": 0.1, "dataset_id": "ds-1", "model_id": self.desk.model_id(n),
                "window": window, "examples": [example],
            })
        )  # fmt: skip

    def requested(self, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        reason = BuildReason.DRIFT if cause else BuildReason.COMMAND
        return self.happened(DatasetRequested(project="desk", reason=reason, request="r"), cause)

    async def erased(
        self, record_ids: tuple[str, ...], datasets: tuple[str, ...], *, deleted: tuple[str, ...] = ()
    ) -> None:
        """Carry out erasure ``letter-7``, as curate proves it."""
        found = ErasureFinding(records=len(record_ids), record_ids=record_ids, dataset_ids=datasets)
        finding = await self.store.put("erasures/desk/7.json", found.model_dump_json().encode())
        self.happened(
            ErasureCompleted(
                project="desk", erasure_id="letter-7", customer="SECRET", requested_by="privacy",
                erased_by="curate", completed_at="2026-11-02T00:00:00Z", records=len(record_ids),
                dataset_ids=datasets, deleted_dataset_ids=deleted, finding=finding,
            )
        )  # fmt: skip
