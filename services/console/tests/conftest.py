"""The events of one project's turn, as the console would read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.actions import Actions
from tunewheel_console.completions import Completions
from tunewheel_console.label_api import add_label_routes
from tunewheel_console.labelling import Labelling
from tunewheel_console.review_api import add_review_routes
from tunewheel_console.reviewing import Reviewing
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import (
    Stage,
)
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant
from tunewheel_runtime.identity.roles import Role as CallersRole
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing import desk as testing
from tunewheel_testing.adapters import BASE, SHA, artifact
from tunewheel_testing.log import MemoryLog

START = datetime(2026, 1, 1, tzinfo=UTC)


class Desk(testing.Desk):
    """Makes the events of project ``desk``, each a second after the one before."""

    dataset_id = "ds-1"
    run_id = "run-1"

    def __init__(self, project: str = "desk") -> None:
        super().__init__(project)
        self._seconds = 0

    def event(self, data: Any, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        self._seconds += 1
        time = START + timedelta(seconds=self._seconds)
        return new_event(data, source="/test", cause=cause, time=time)

    def model_id(self, n: int = 1) -> str:
        return f"{self.project}-{n}"

    def of_run(self, topic: str, **fields: Any) -> Envelope[Any]:
        return self.say(topic, run_id=self.run_id, **fields)

    def of_model(self, topic: str, **fields: Any) -> Envelope[Any]:
        return self.say(topic, **({"model_id": self.model_id()} | fields))

    def requested(self) -> Envelope[Any]:
        return self.say("dataset.requested", reason="command", request="r1")

    def versioned(self) -> Envelope[Any]:
        funnel = {"stage": "duplicates", "entered": 60, "left": 50, "reasons": {"exact": 10}}
        return self.say(
            "dataset.versioned", dataset_id=self.dataset_id, manifest=artifact("datasets/ds-1/manifest.json"),
            spec_sha256=SHA, criteria_sha256=SHA, base_model=BASE.name, funnel=(funnel,),
            counts={"records": 60, "examples": 50, "train": 40, "holdout": 10},
        )  # fmt: skip

    def controlled(self, action: str) -> Envelope[Any]:
        return self.of_run("train.control", action=action, request=action)

    def started(self) -> Envelope[Any]:
        told = {"dataset_id": self.dataset_id, "base": BASE, "method": "lora", "total_steps": 10}
        return self.of_run("train.started", **told)

    def progressed(self, step: int, loss: float) -> Envelope[Any]:
        return self.of_run(
            "train.progressed", step=step, total_steps=10, epoch=0.1, loss=loss, learning_rate=1e-3,
            grad_norm=0.5, memory_bytes=2 * 2**30, tokens_per_second=200.0, eta_seconds=9.0,
        )  # fmt: skip

    def failed_training(self, reason: str, superseded_by: str | None = None) -> Envelope[Any]:
        told = {"field": "(run)", "reason": reason, "superseded_by": superseded_by}
        return self.of_run("train.failed", dataset_id=self.dataset_id, **told)

    def verdict(self, n: int = 1, *, passed: bool = True, **changes: Any) -> dict[str, Any]:
        figures = {"base-1": ("base", 0.1), self.model_id(n): ("candidate", 0.4)}
        contestants = tuple(
            {"role": role, "model_id": name, "metrics": {"rouge_l": figure, "examples": 10.0}}
            for name, (role, figure) in figures.items()
        )
        check = testing.CHECK | {"observed": 0.4, "passed": passed, "reason": "0.4 of 0.1 needed"}
        return super().verdict(n) | {"contestants": contestants, "checks": (check,)} | changes

    def review_requested(self, **changes: Any) -> Envelope[Any]:
        return self.say("review.requested", **self.verdict(**changes))

    def asks(self, review_id: str, *, items: int, reviewers: int, **changes: Any) -> dict[str, Any]:
        """Return what a request says of the set of prompts that people are to compare."""
        asked = {"review_id": review_id, "items": items, "reviewers": reviewers}
        return asked | {"review_set": artifact(f"reviews/{review_id}.json")} | changes

    async def stored_review(self, store: ObjectStore, *, items: int, reviewers: int) -> Envelope[Any]:
        """Put a set into ``store`` and return the request to compare its answers."""
        cases = [
            {
                "item_id": f"i-{n}", "example_id": f"e-{n}", "expected": f"expert {n}",
                "messages": [{"role": "user", "content": f"question {n}"}], "candidate": f"new {n}",
                "other": f"old {n}", "stratum": "worst",
            }
            for n in range(items)
        ]  # fmt: skip
        found = ReviewSet(
            review_id="rev-1", project=self.project, run_id=self.run_id, evaluation_id=None,
            candidate_id=self.model_id(), other_id="desk-0", items=cases, reviewers=reviewers,
        )  # fmt: skip
        ref = await store.put("reviews/rev-1.json", found.model_dump_json().encode())
        asked = self.asks("rev-1", items=items, reviewers=reviewers, review_set=ref)
        return self.review_requested(**asked)

    async def stored_labels(self, store: ObjectStore, *, prompts: int) -> Envelope[Any]:
        """Put prompts into ``store`` and return the request to answer them."""
        system = {"role": "system", "content": "Answer."}
        items = [
            {
                "completion_id": f"cmpl-{n}", "customer": f"customer-{n}",
                "messages": [system, {"role": "user", "content": f"My roof panel {n} hums."}],
                "output": '{"category": "battery"}',
            }
            for n in range(prompts)
        ]  # fmt: skip
        found = LabelPrompts(project=self.project, request_id="alarm-1", items=items)
        await store.replace("prompts.json", found.model_dump_json().encode())
        return self.say(
            "labels.requested", request_id="alarm-1", alarm_id="alarm-1", dataset_id=self.dataset_id,
            wanted=2, keywords=("solar", "roof"), prompts="prompts.json",
            completion_ids=[item["completion_id"] for item in items],
        )  # fmt: skip

    async def stored_pairs(
        self, store: ObjectStore, *, revision: int = 1, erased: Sequence[int] = (), **changes: Any
    ) -> Envelope[Any]:
        """Put three pairs of a trial's answers into ``store`` and return the revision that adds them."""
        first, path = 3 * (revision - 1), "pairs.{}.json"
        items = [
            {"completion_id": f"cmpl-{n}"}
            if n in erased
            else {
                "completion_id": f"cmpl-{n}", "messages": [{"role": "user", "content": f"question {n}"}],
                "output": f"old {n}", "candidate": f"new {n}",
            }
            for n in range(first, first + 3)
        ]  # fmt: skip
        found = LabelPrompts(project=self.project, request_id="compare-1", items=items)
        await store.replace(path.format(revision), found.model_dump_json().encode())
        return self.of_model(
            "comparisons.requested", request_id="compare-1", against="desk-0", stage="shadow",
            revision=revision, completion_ids=[f"cmpl-{n}" for n in range(first + 3)],
            pairs=[path.format(n) for n in range(1, revision + 1)], **changes,
        )  # fmt: skip

    def ingested(self, source_id: str, trust: str) -> Envelope[Any]:
        told = {"kind": "example", "source_event_id": "e", "input": "q", "output": "a", "group": "g"}
        names = {"record_id": f"rec-{source_id}", "source_id": source_id, "trust": trust}
        return self.say("record.ingested", **names, **told)

    def resolved(self) -> Envelope[Any]:
        times = dict.fromkeys(("raised_at", "resolved_at"), START)
        told = {"alarm_id": "alarm-1", "detector": "clusters", "reason": "covered"} | times
        return self.of_model("drift.resolved", dataset_id=self.dataset_id, **told)

    def reviewed(self) -> Envelope[Any]:
        return self.of_run("review.submitted", reviewer="ann", verdict="approved")

    def passed_now(self) -> Envelope[Any]:
        """Return a verdict that comes after all that tests publish with today's date."""
        return new_event(self.passed().data, source="/test")

    def failed(self, **changes: Any) -> Envelope[Any]:
        told = self.verdict(passed=False, **changes)
        return self.say("eval.failed", **told, reasons=("rouge_l is too low",))

    def completion(self, n: int) -> Envelope[Any]:
        told = {"role": "production", "messages": (), "output": "{}", "finish_reason": "stop"}
        names = {"completion_id": f"{self.project}-{n}", "completed_at": START}
        return self.of_model("inference.completed", **names, **told)

    def rating(self, n: int) -> Envelope[Any]:
        names = {"feedback_id": f"f-{n}", "completion_id": f"{self.project}-{n}"}
        return self.say("feedback.received", **names, rating="up")

    def promoted(self, to_stage: Stage = Stage.PRODUCTION) -> Envelope[Any]:
        told = {"to_stage": to_stage, "cause": "c", "reason": "held up"}
        return self.of_model("model.promoted", from_stage="evaluated", **told)

    def pinned(self, model_id: str) -> Envelope[Any]:
        return self.of_model("model.pinned", model_id=model_id, pinned=True, cause="c", reason="a fair")

    def refused(self, action: str, model_id: str) -> Envelope[Any]:
        told = {"field": "model_id", "reason": "is in production already", "command_id": "c"}
        return self.of_model("command.refused", model_id=model_id, action=action, **told)

    def desired(self, generation: int = 3) -> Envelope[Any]:
        names = {"model_id": self.model_id(), "adapter": self.adapter(), "dataset_id": self.dataset_id}
        routes = ({"role": "production", "percent": 100} | names,)
        return self.say(
            "serving.desired", generation=generation, base=BASE, system_prompt="Answer.",
            desired={"routes": routes},
        )  # fmt: skip

    def drifted(self) -> Envelope[Any]:
        window = {"first_completion_id": "c1", "last_completion_id": "c9", "completions": 9}
        example = {"completion_id": "c3", "excerpt": "my solar panel hums", "score": 0.9}
        return self.of_model(
            "drift.detected", detector="input", statistic_name="mmd2", statistic=0.2, p_value=0.001,
            threshold=0.01, dataset_id=self.dataset_id, examples=(example,),
            window=window | dict.fromkeys(("started_at", "ended_at"), START),
        )  # fmt: skip

    def watched(self, detector: str, **changes: Any) -> Envelope[Any]:
        """Return the figures of a detector's second window."""
        columns = {"ended_at": (START, START), "items": (100, 100), "p_value": (0.5, 0.002)}
        return self.of_model(
            "window.judged", **{
                "figure_id": f"{self.project}/{detector}", "detector": detector, "family": "input",
                "dataset_id": self.dataset_id, "state": "calm", "windows": 2, "judged_at": START,
                "items": 100, "statistic_name": "share", "statistic": 0.09, "usual": 0.05, "effect": 0.04,
                "effect_unit": "rise of the share", "floor": 0.015, "p_value": 0.002, "threshold": 0.0003,
                "series": columns | {"statistic": (0.06, 0.09), "effect": (0.01, 0.04)},
                "slices": ({"by": "key", "value": "web", "items": 80.0, "share": 0.125},),
            } | changes,
        )  # fmt: skip

    def decided(self) -> Envelope[Any]:
        """Return what curate says of an alarm that waits for approval."""
        return self.say("turn.decided", step="waits for approval", next_step="Run `tunewheel dataset build`.")

    def turn(self) -> list[Envelope[Any]]:
        """Return the events of a whole turn, from declaration to drift."""
        return [
            self.declared(),
            self.requested(),
            self.versioned(),
            self.started(),
            self.progressed(1, 2.0),
            self.progressed(2, 1.0),
            self.trained(),
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


class Console:
    """One console process: its own state, on a log and a store that all share."""

    def __init__(self, log: MemoryLog, store: ObjectStore) -> None:
        self.state = ConsoleState()
        self.log = log
        self.reviewing = Reviewing(self.state, Actions(log), store, self.refresh)  # type: ignore[arg-type]
        actions = Actions(log, applied=self.state.apply)  # type: ignore[arg-type]
        self.labelling = Labelling(self.state, actions, store, self.refresh)

    async def refresh(self) -> None:
        for event in self.log.events:
            self.state.apply(event)

    def client(self, name: str | None, *roles: CallersRole) -> httpx.AsyncClient:
        web = FastAPI(openapi_url=None)
        add_review_routes(web, self.state, self.reviewing)
        add_label_routes(web, self.state, self.labelling)
        answer_errors(web)
        guard(web.routes, Access(HttpSettings(identity="open"), warn=lambda *_: None))
        grants = (Grant(frozenset(roles or (CallersRole.REVIEWER,)), frozenset({"desk"})),)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            if name is not None:
                set_caller(scope, Caller(Principal(name=name), grants))
            await web(scope, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://")


@pytest.fixture
def completions(tmp_path: Path) -> Iterator[Completions]:
    """The completions that are searched, open and empty."""
    made = Completions(tmp_path / "completions")
    made.open()
    yield made
    made.close()


@pytest.fixture
async def console(log: MemoryLog, store: ObjectStore, desk: Any) -> Console:
    """A console that has read of a review of four items, shared by two people, each item judged once."""
    await log.publish(await desk.stored_review(store, items=4, reviewers=2))
    made = Console(log, store)
    await made.refresh()
    return made
