"""The events of one project's turn, as the console would read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ModelPromoted, ServingDesired, Stage
from tunewheel_contracts.events.production import (
    DriftDetected,
    DriftExample,
    DriftWindow,
    InferenceCompleted,
)
from tunewheel_contracts.events.training import (
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.criteria import Criterion, Metric
from tunewheel_contracts.formats.dataset import DatasetCounts, FunnelStage
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck, Role
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec

SHA = "0" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)
BASE = BaseModelRef(name="org/Tiny-Base", revision=f"sha256:{SHA}")


def artifact(path: str) -> ArtifactRef:
    return ArtifactRef(path=path, sha256=SHA, size_bytes=1)


class Desk:
    """Makes the events of project ``desk``, each a second after the one before."""

    dataset_id = "ds-1"
    run_id = "run-1"
    model_id = "desk-1"

    def __init__(self, project: str = "desk") -> None:
        self.project = project
        self._seconds = 0

    def event(self, data: Any) -> Envelope[Any]:
        self._seconds += 1
        return new_event(data, source="/test", time=START + timedelta(seconds=self._seconds))

    def declared(self) -> Envelope[Any]:
        spec = ProjectSpec(
            project=self.project,
            base_model=BASE.name,
            task=TaskSpec(system_prompt="Answer."),
            criteria=(Criterion(metric=Metric.ROUGE_L, minimum=0.1),),
        )
        return self.event(ProjectDeclared(project=self.project, spec=spec))

    def requested(self) -> Envelope[Any]:
        return self.event(DatasetRequested(project=self.project, reason=BuildReason.COMMAND, request="r1"))

    def versioned(self) -> Envelope[Any]:
        funnel = (FunnelStage(stage="duplicates", entered=60, left=50, reasons={"exact": 10}),)
        return self.event(
            DatasetVersioned(
                project=self.project,
                dataset_id=self.dataset_id,
                manifest=artifact("datasets/ds-1/manifest.json"),
                spec_sha256=SHA,
                criteria_sha256=SHA,
                base_model=BASE.name,
                counts=DatasetCounts(records=60, examples=50, train=40, holdout=10),
                funnel=funnel,
            )
        )

    def controlled(self, action: TrainAction) -> Envelope[Any]:
        return self.event(
            TrainControl(project=self.project, run_id=self.run_id, action=action, request=action.value)
        )

    def started(self) -> Envelope[Any]:
        return self.event(
            TrainStarted(
                project=self.project,
                run_id=self.run_id,
                dataset_id=self.dataset_id,
                base=BASE,
                method=TrainMethod.LORA,
                total_steps=10,
            )
        )

    def progressed(self, step: int, loss: float) -> Envelope[Any]:
        return self.event(
            TrainProgressed(
                project=self.project,
                run_id=self.run_id,
                step=step,
                total_steps=10,
                epoch=0.1,
                loss=loss,
                learning_rate=1e-3,
                grad_norm=0.5,
                memory_bytes=2 * 2**30,
                tokens_per_second=200.0,
                eta_seconds=9.0,
            )
        )

    def completed(self) -> Envelope[Any]:
        return self.event(
            TrainCompleted(
                project=self.project,
                run_id=self.run_id,
                dataset_id=self.dataset_id,
                dataset=artifact("datasets/ds-1/manifest.json"),
                manifest=artifact("runs/run-1/manifest.json"),
                criteria_sha256=SHA,
                adapter=self.adapter(),
                final_loss=0.5,
                tokens=10,
                wall_seconds=1.0,
            )
        )

    def failed_training(self, reason: str, superseded_by: str | None = None) -> Envelope[Any]:
        return self.event(
            TrainFailed(
                project=self.project,
                run_id=self.run_id,
                dataset_id=self.dataset_id,
                field="(run)",
                reason=reason,
                superseded_by=superseded_by,
            )
        )

    def adapter(self) -> AdapterRef:
        path = f"adapters/{self.model_id}"
        file = artifact(f"{path}/adapter_model.safetensors")
        return AdapterRef(
            model_id=self.model_id, path=path, files=(file,), base=BASE, method=TrainMethod.LORA
        )

    def _verdict(self, *, passed: bool, **changes: Any) -> dict[str, Any]:
        criterion = Criterion(metric=Metric.ROUGE_L, minimum=0.1)
        metrics = {"rouge_l": 0.4, "examples": 10.0}
        return {
            "project": self.project,
            "run_id": self.run_id,
            "dataset_id": self.dataset_id,
            "dataset": artifact("datasets/ds-1/manifest.json"),
            "adapter": self.adapter(),
            "scorecard": artifact("scorecards/sc-1.json"),
            "criteria_sha256": SHA,
            "contestants": (
                Contestant(role=Role.BASE, model_id="base-1", metrics={"rouge_l": 0.1, "examples": 10.0}),
                Contestant(role=Role.CANDIDATE, model_id=self.model_id, metrics=metrics),
            ),
            "checks": (
                CriterionCheck(criterion=criterion, observed=0.4, passed=passed, reason="0.4 of 0.1 needed"),
            ),
        } | changes

    def review_requested(self, **changes: Any) -> Envelope[Any]:
        return self.event(ReviewRequested(**self._verdict(passed=True, **changes)))

    def reviewed(self) -> Envelope[Any]:
        return self.event(
            ReviewSubmitted(project=self.project, run_id=self.run_id, reviewer="ann", verdict="approved")
        )

    def passed(self) -> Envelope[Any]:
        return self.event(EvalPassed(**self._verdict(passed=True)))

    def failed(self, **changes: Any) -> Envelope[Any]:
        return self.event(
            EvalFailed(**self._verdict(passed=False, **changes), reasons=("rouge_l is too low",))
        )

    def completion(self, n: int) -> Envelope[Any]:
        return self.event(
            InferenceCompleted(
                project=self.project,
                completion_id=f"{self.project}-{n}",
                model_id=self.model_id,
                role=RouteRole.PRODUCTION,
                messages=(),
                output="{}",
                finish_reason="stop",
                completed_at=START,
            )
        )

    def rating(self, n: int) -> Envelope[Any]:
        return self.event(
            FeedbackReceived(
                project=self.project, feedback_id=f"f-{n}", completion_id=f"{self.project}-{n}", rating="up"
            )
        )

    def promoted(self, to_stage: Stage = Stage.PRODUCTION) -> Envelope[Any]:
        return self.event(
            ModelPromoted(
                project=self.project,
                model_id=self.model_id,
                from_stage=Stage.EVALUATED,
                to_stage=to_stage,
                cause="c",
                reason="held up",
            )
        )

    def desired(self, generation: int = 3) -> Envelope[Any]:
        route = Route(
            model_id=self.model_id,
            role=RouteRole.PRODUCTION,
            percent=100,
            adapter=self.adapter(),
            dataset_id=self.dataset_id,
        )
        return self.event(
            ServingDesired(
                project=self.project,
                generation=generation,
                base=BASE,
                system_prompt="Answer.",
                desired=DesiredRoutes(routes=(route,)),
            )
        )

    def drifted(self) -> Envelope[Any]:
        window = DriftWindow(
            first_completion_id="c1", last_completion_id="c9", completions=9, started_at=START, ended_at=START
        )
        return self.event(
            DriftDetected(
                project=self.project,
                detector="input",
                statistic_name="mmd2",
                statistic=0.2,
                p_value=0.001,
                threshold=0.01,
                dataset_id=self.dataset_id,
                model_id=self.model_id,
                window=window,
                examples=(DriftExample(completion_id="c3", excerpt="my solar panel hums", score=0.9),),
            )
        )

    def turn(self) -> list[Envelope[Any]]:
        """Return the events of a whole turn, from declaration to drift."""
        return [
            self.declared(),
            self.requested(),
            self.versioned(),
            self.started(),
            self.progressed(1, 2.0),
            self.progressed(2, 1.0),
            self.completed(),
            self.passed(),
            self.promoted(),
            self.desired(),
            self.drifted(),
        ]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def make_desk() -> type[Desk]:
    return Desk


@pytest.fixture
def state() -> ConsoleState:
    return ConsoleState()
