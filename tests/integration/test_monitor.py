"""The monitor on a real broker: drift, rollouts, kill -9, bad input."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_contracts.events.lifecycle import ModelPromoted, ServingDesired, Stage
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_runtime.partitions import partition_of
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.specs import declared, small_spec

from .bus import Bus, process, running, until
from .verdicts import adapter_of

pytestmark = pytest.mark.integration
MODULE = "tunewheel_monitor.main"

WINDOW = 20
VALID = '{"category": "bell"}'
PARTS = ("bell", "horn", "lamp", "brake", "tyre", "lock")
TROUBLES = ("is broken", "came late", "fell off", "is missing", "makes noise")
BELLS = [f"{owner} {part} {what}" for owner in ("My", "Her", "The") for part in PARTS for what in TROUBLES]
KINDS = ("income", "inheritance", "property", "dividend", "payroll")
TAXES = [
    f"May I {verb} the {kind} tax of {year}?"
    for year in (1999, 2005, 2011, 2017)
    for verb in ("appeal", "postpone")
    for kind in KINDS
]
OVERRIDES = {
    "drift": {"window": WINDOW, "cooldown_completions": 0},
    "rollout": {
        "canary": {"min_requests": 10, "deadline_seconds": 600},
        "shadow": {"min_requests": 500, "max_label_changes": 1},
    },
}


def monitor(kafka: str, store: Path) -> Service:
    from tunewheel_monitor.main import make_app
    from tunewheel_monitor.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=store.as_uri(), clock_seconds=0.5))


@dataclass
class Production:
    """One project with a model in production, and the traffic it sees."""

    bus: Bus
    project: str
    store: ObjectStore
    sent: int = 0

    @property
    def champion(self) -> str:
        return adapter_of(self.project, 1).model_id

    @property
    def candidate(self) -> str:
        return adapter_of(self.project, 2).model_id

    async def begin(self) -> None:
        dataset_id = f"ds-{self.project}"
        await self._store_dataset(dataset_id)
        await self.bus.publish(
            declared(self.project, **OVERRIDES), self._promotion(self.champion, Stage.PRODUCTION)
        )
        await self.serve((self.champion, RouteRole.PRODUCTION, 100), generation=1)

    async def _store_dataset(self, dataset_id: str) -> None:
        train, holdout = (
            [
                {"example_id": f"{split}-{n:03}", "messages": [{"role": "user", "content": text}]}
                for n, text in enumerate(texts)
            ]
            for split, texts in (("train", BELLS[:70]), ("holdout", BELLS[70:]))
        )
        spec = small_spec(self.project)
        await put_dataset(self.store, spec, dataset_id=dataset_id, train=train, holdout=holdout)

    def _promotion(
        self, model_id: str, to_stage: Stage, *, at: datetime | None = None
    ) -> Envelope[ModelPromoted]:
        data = ModelPromoted(
            project=self.project, model_id=model_id, from_stage=Stage.EVALUATED, to_stage=to_stage,
            cause="c", reason="r",
        )  # fmt: skip
        return new_event(data, source="/test", time=at)

    async def serve(self, *routes: tuple[str, RouteRole, int], generation: int) -> None:
        made = [
            Route(model_id=model, role=role, percent=percent, adapter=None, dataset_id=f"ds-{self.project}")
            for model, role, percent in routes
        ]
        data = ServingDesired(
            project=self.project,
            generation=generation,
            base=SMOLLM2,
            system_prompt="",
            desired=DesiredRoutes(routes=tuple(made)),
        )
        await self.bus.publish(new_event(data, source="/test"))

    async def begin_canary(self, *, at: datetime | None = None) -> None:
        await self.bus.publish(self._promotion(self.candidate, Stage.CANARY, at=at))
        await self.serve(
            (self.champion, RouteRole.PRODUCTION, 80), (self.candidate, RouteRole.CANARY, 20), generation=4
        )

    async def begin_shadow(self) -> None:
        await self.bus.publish(self._promotion(self.candidate, Stage.SHADOW))
        await self.serve(
            (self.champion, RouteRole.PRODUCTION, 100), (self.candidate, RouteRole.SHADOW, 100), generation=4
        )

    async def ask(self, texts: Sequence[str], **changes: Any) -> None:
        for text in texts:
            values: dict[str, Any] = {
                "project": self.project,
                "completion_id": f"{self.project}-{self.sent:05}",
                "model_id": self.champion,
                "role": RouteRole.PRODUCTION,
                "messages": (ChatMessage(role="user", content=text),),
                "output": VALID,
                "finish_reason": "stop",
                "completed_at": datetime.now(UTC) + timedelta(milliseconds=1),
            }
            self.sent += 1
            await self.bus.publish(new_event(InferenceCompleted(**(values | changes)), source="/test"))


async def test_bad_answers_end_a_canary_new_questions_raise_an_alarm_and_bad_input_stops_nothing(
    kafka: str, tmp_path: Path, project: str
):
    async with Bus(kafka) as bus, running(monitor(kafka, tmp_path)):
        production = Production(bus, project, ObjectStore(tmp_path.as_uri()))
        await production.begin()
        await production.begin_canary()
        canary = {"model_id": production.candidate, "role": RouteRole.CANARY}
        await production.ask(BELLS[:5], **canary, pinned=True, output="no JSON")
        for text in BELLS[:30]:
            await production.ask([text])
            await production.ask([text], **canary, output="no JSON")
        (judged,) = await bus.collect(topics.ROLLOUT_JUDGED, 1, where=lambda event: event.project == project)
        await bus.send("inference.completed", b"x", b"{", {"ce_type": b"inference.completed"})
        await production.ask(TAXES)
        (drift,) = await bus.collect(
            topics.DRIFT_DETECTED, 1, where=lambda e: e.project == project and e.data.detector == "input"
        )
        (figures,) = await bus.collect(
            topics.WINDOW_JUDGED,
            1,
            where=lambda e: e.data.figure_id == f"{project}/{drift.data.signal}" and e.data.state == "alarm",
        )
        (letter,) = await bus.dead_letters("inference.completed", 1)
    assert figures.data.alarm_id == drift.data.alarm_id
    assert figures.data.p_value == pytest.approx(drift.data.p_value, rel=1e-3)
    assert (judged.data.model_id, judged.data.stage) == (production.candidate, "canary")
    assert judged.data.verdict == "failed"
    assert judged.data.reasons
    assert (drift.data.detector, drift.data.dataset_id) == ("input", f"ds-{project}")
    assert drift.data.window.completions == WINDOW
    assert drift.causation_id
    assert "tax" in (tmp_path / drift.data.evidence).read_text(), "read where the completions lie"
    assert letter.value == b"{"


async def test_people_who_find_a_shadows_answers_worse_end_it(kafka: str, tmp_path: Path, project: str):
    def ours(event: Envelope[Any]) -> bool:
        return event.project == project

    async with Bus(kafka) as bus, running(monitor(kafka, tmp_path)):
        production = Production(bus, project, ObjectStore(tmp_path.as_uri()))
        await production.begin()
        await production.begin_shadow()
        shadow = {"model_id": production.candidate, "role": RouteRole.SHADOW}
        for text in BELLS[:20]:
            asked = f"{project}-{production.sent:05}"
            await production.ask([text])
            await production.ask([text], **shadow | {"shadow_of": asked, "output": '{"category": "horn"}'})
        *_, request = await bus.collect(topics.COMPARISONS_REQUESTED, 3, where=ours)
        pairs = [json.loads((tmp_path / path).read_text())["items"] for path in request.data.pairs]
        for completion_id in request.data.completion_ids:
            told = {"project": project, "request_id": request.data.request_id, "preference": "worse"}
            answer = AnswersCompared(**told, model_id=production.candidate, completion_id=completion_id)
            await bus.publish(new_event(answer, source="/test"))
        (judged,) = await bus.collect(topics.ROLLOUT_JUDGED, 1, where=ours)
    assert [len(some) for some in pairs] == [5, 5, 10]
    assert {(item["output"], item["candidate"]) for item in pairs[2]} == {(VALID, '{"category": "horn"}')}
    assert (judged.data.verdict, judged.data.decided_by) == ("failed", "bounds")
    assert judged.data.reasons[0].startswith("answers: worse in ")


async def test_a_candidate_that_answers_nothing_fails_at_its_deadline(
    kafka: str, tmp_path: Path, project: str
):
    async with Bus(kafka) as bus, running(monitor(kafka, tmp_path)):
        production = Production(bus, project, ObjectStore(tmp_path.as_uri()))
        await production.begin()
        await production.begin_canary(at=datetime.now(UTC) - timedelta(seconds=601))
        await production.ask(BELLS[:10])
        (judged,) = await bus.collect(topics.ROLLOUT_JUDGED, 1, where=lambda event: event.project == project)
    assert judged.data.model_id == production.candidate
    assert (judged.data.verdict, judged.data.decided_by) == ("failed", "deadline")


def counted(store: Path, project: str) -> int:
    """Return how many scores the project's newest checkpoint holds, and check that its window fits."""
    paths = sorted((store / "monitor" / project / "state").glob("*.json"))
    if not paths:
        return 0
    try:
        state = json.loads(paths[-1].read_text())["state"]
    except FileNotFoundError:  # pruned meanwhile: there are later ones
        return 0
    scores = len(base64.b64decode(state["seen"])) // 6
    assert state["version"]["answers"]["items"] == scores % WINDOW
    return scores


@pytest.mark.chaos
async def test_a_killed_process_that_bears_a_name_goes_on_at_once(
    fresh_kafka: str, tmp_path: Path, project: str
):
    """Without the name the broker would keep its partitions from everybody for ten minutes."""
    named = {"TUNEWHEEL_SESSION_TIMEOUT_MS": "600000", "TUNEWHEEL_INSTANCE": "monitor-0"}
    named["TUNEWHEEL_ENCODED_PER_HOUR"] = "0"
    store = tmp_path / "store"
    async with Bus(fresh_kafka) as bus:
        production = Production(bus, project, ObjectStore(store.as_uri()))
        await production.begin()
        for _ in range(2):
            with process(MODULE, fresh_kafka, store, tmp_path / "log", **named):
                await production.ask(BELLS[:5])
                await until(lambda: counted(store, project) == production.sent)


@pytest.mark.chaos
@pytest.mark.nightly("kills")
async def test_two_processes_share_the_projects_and_a_killed_one_loses_and_doubles_nothing(
    fresh_kafka: str, tmp_path: Path, project: str
):
    kafka, store = fresh_kafka, tmp_path / "store"
    names = {partition_of(name, 3): name for name in (f"{project}-{n}" for n in range(20))}
    async with Bus(kafka) as bus, contextlib.AsyncExitStack() as processes:
        productions = [Production(bus, name, ObjectStore(store.as_uri())) for name in names.values()]
        assert len(productions) == 3, "one in each partition"
        for production in productions:
            await production.begin()

        def start(name: str) -> subprocess.Popen[bytes]:
            return processes.enter_context(process(MODULE, kafka, store, tmp_path / f"{name}.log"))

        async def ask(upto: int) -> None:
            for production in productions:
                await production.ask(TAXES[production.sent : upto])

        async def all_counted() -> None:
            await until(lambda: all(counted(store, one.project) == one.sent for one in productions))

        first, second = start("first"), start("second")
        await ask(7)
        await all_counted()
        await ask(15)
        first.kill()  # in the middle of a window, and of its work
        await all_counted()
        start("third")
        await ask(17)
        second.kill()
        await ask(2 * WINDOW)
        await all_counted()  # the last process lives on: it may not have said yet what it counted
        alarms: dict[tuple[str, str], set[str]] = {}

        def is_first(event: Envelope[Any]) -> bool:
            said = alarms.setdefault((event.project, event.data.signal), set())
            said.add(event.data.alarm_id)
            return event.data.detector == "input" and sum(key[0] == event.project for key in alarms) == 1

        found = await bus.collect(topics.DRIFT_DETECTED, 3, where=is_first)
        assert {event.project for event in found} == set(names.values())
        assert {event.data.window.completions for event in found} == {WINDOW}
        assert all(len(said) == 1 for said in alarms.values())
