"""The events of one project's turn, as the console would read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.actions import Actions
from tunewheel_console.label_api import add_label_routes
from tunewheel_console.labelling import Labelling
from tunewheel_console.review_api import add_review_routes
from tunewheel_console.reviewing import Reviewing
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, DatasetVersioned, RecordIngested
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import (
    CommandRefused,
    ModelPinned,
    ModelPromoted,
    ServingDesired,
    Stage,
)
from tunewheel_contracts.events.monitoring import DriftResolved, LabelsRequested, TurnDecided
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
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import ChatMessage, DatasetCounts, FunnelStage
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.review import ReviewItem, ReviewSet
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck, Role
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant
from tunewheel_runtime.identity.roles import Role as CallersRole
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore

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

    def declared(self, **task: Any) -> Envelope[Any]:
        spec = ProjectSpec(
            project=self.project,
            base_model=BASE.name,
            task=TaskSpec(system_prompt="Answer.", **task),
            criteria=(Criterion(metric="rouge_l", minimum=0.1),),
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

    def verdict(self, *, passed: bool, **changes: Any) -> dict[str, Any]:
        criterion = Criterion(metric="rouge_l", minimum=0.1)
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
        return self.event(ReviewRequested(**self.verdict(passed=True, **changes)))

    def asks(self, review_id: str, *, items: int, reviewers: int, **changes: Any) -> dict[str, Any]:
        """Return what a request says of the set of prompts that people are to compare."""
        asked = {"review_id": review_id, "items": items, "reviewers": reviewers}
        return asked | {"review_set": artifact(f"reviews/{review_id}.json")} | changes

    async def stored_review(self, store: ObjectStore, *, items: int, reviewers: int) -> Envelope[Any]:
        """Put a set into ``store`` and return the request to compare its answers."""
        found = ReviewSet(
            review_id="rev-1",
            project=self.project,
            run_id=self.run_id,
            evaluation_id=None,
            candidate_id=self.model_id,
            other_id="desk-0",
            items=tuple(
                ReviewItem(
                    item_id=f"i-{n}",
                    example_id=f"e-{n}",
                    messages=(ChatMessage(role="user", content=f"question {n}"),),
                    expected=f"expert {n}",
                    candidate=f"new {n}",
                    other=f"old {n}",
                    stratum="worst",
                )
                for n in range(items)
            ),
            reviewers=reviewers,
        )
        ref = await store.put("reviews/rev-1.json", found.model_dump_json().encode())
        asked = self.asks("rev-1", items=items, reviewers=reviewers, review_set=ref)
        return self.review_requested(**asked)

    async def stored_labels(self, store: ObjectStore, *, prompts: int) -> Envelope[Any]:
        """Put prompts into ``store`` and return the request to answer them."""
        items = tuple(
            LabelPrompt(
                completion_id=f"cmpl-{n}",
                customer=f"customer-{n}",
                messages=(
                    ChatMessage(role="system", content="Answer."),
                    ChatMessage(role="user", content=f"My roof panel {n} hums."),
                ),
                output='{"category": "battery"}',
            )
            for n in range(prompts)
        )
        found = LabelPrompts(project=self.project, request_id="alarm-1", items=items)
        await store.replace("prompts.json", found.model_dump_json().encode())
        return self.event(
            LabelsRequested(
                project=self.project,
                request_id="alarm-1",
                alarm_id="alarm-1",
                dataset_id=self.dataset_id,
                wanted=2,
                keywords=("solar", "roof"),
                completion_ids=tuple(item.completion_id for item in items),
                prompts="prompts.json",
            )
        )

    def ingested(self, source_id: str, trust: str) -> Envelope[Any]:
        record = {"project": self.project, "record_id": f"rec-{source_id}", "source_id": source_id}
        told = {"kind": "example", "source_event_id": "e", "input": "q", "output": "a", "group": "g"}
        return self.event(RecordIngested.model_validate(record | told | {"trust": trust}))

    def resolved(self) -> Envelope[Any]:
        return self.event(
            DriftResolved(
                project=self.project,
                alarm_id="alarm-1",
                detector="clusters",
                dataset_id=self.dataset_id,
                model_id=self.model_id,
                reason="covered",
                raised_at=START,
                resolved_at=START,
            )
        )

    def reviewed(self) -> Envelope[Any]:
        return self.event(
            ReviewSubmitted(project=self.project, run_id=self.run_id, reviewer="ann", verdict="approved")
        )

    def passed(self) -> Envelope[Any]:
        return self.event(EvalPassed(**self.verdict(passed=True)))

    def passed_now(self) -> Envelope[Any]:
        """Return a verdict that comes after all that tests publish with today's date."""
        return new_event(EvalPassed(**self.verdict(passed=True)), source="/test")

    def failed(self, **changes: Any) -> Envelope[Any]:
        return self.event(
            EvalFailed(**self.verdict(passed=False, **changes), reasons=("rouge_l is too low",))
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

    def pinned(self, model_id: str) -> Envelope[Any]:
        pin = ModelPinned(project=self.project, model_id=model_id, pinned=True, cause="c", reason="a fair")
        return self.event(pin)

    def refused(self, action: str, model_id: str) -> Envelope[Any]:
        told = {"field": "model_id", "reason": "is in production already"}
        names = {"project": self.project, "command_id": "c", "model_id": model_id, "action": action}
        return self.event(CommandRefused(**names, **told))

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

    def decided(self) -> Envelope[Any]:
        """Return what curate says of an alarm that waits for approval."""
        return self.event(
            TurnDecided(project=self.project, step="waits for approval", next_step="Run `tunewheel build`.")
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


@pytest.fixture
def make_state() -> type[ConsoleState]:
    return ConsoleState


class Log:
    """Stands where events are published; ``state`` reads them when ``refresh`` is called, or never."""

    def __init__(self) -> None:
        self.events: list[Envelope[Any]] = []
        self.away = False

    def new(self, data: Any, *, cause: Any = None) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)

    async def publish(self, event: Envelope[Any]) -> None:
        if self.away:
            raise TransientError("the broker is away")
        self.events.append(event)


class Console:
    """One console process: its own state, on a log and a store that all share."""

    def __init__(self, log: Log, store: ObjectStore) -> None:
        self.state = ConsoleState()
        self.log = log
        self.reviewing = Reviewing(self.state, Actions(log), store, self.refresh)  # type: ignore[arg-type]
        self.labelling = Labelling(self.state, Actions(log), store, self.refresh)  # type: ignore[arg-type]

    async def refresh(self) -> None:
        for event in self.log.events:
            self.state.apply(event)

    def client(self, name: str | None, *roles: CallersRole) -> httpx.AsyncClient:
        web = FastAPI(openapi_url=None)
        add_review_routes(web, self.state, self.reviewing)
        add_label_routes(web, self.state, self.labelling)
        guard(web.routes, Access(HttpSettings(identity="open"), warn=lambda *_: None))
        grants = (Grant(frozenset(roles or (CallersRole.REVIEWER,)), frozenset({"desk"})),)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            if name is not None:
                set_caller(scope, Caller(Principal(name=name), grants))
            await web(scope, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://")


@pytest.fixture
async def console(log: Log, store: ObjectStore, desk: Any) -> Console:
    """A console that has read of a review of four items, shared by two people, each item judged once."""
    await log.publish(await desk.stored_review(store, items=4, reviewers=2))
    made = Console(log, store)
    await made.refresh()
    return made
