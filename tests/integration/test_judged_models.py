"""What eval judges and the registry makes of it: both on a real broker, with the real measuring process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ModelPromoted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.main import make_app
from tunewheel_eval.settings import Settings
from tunewheel_testing.specs import declared

from .bus import Bus, running
from .evaluations import LENIENT, Ground, make_ground
from .forgetful import forgetful
from .fork_server import forked
from .test_registry import Reader, registry

pytestmark = pytest.mark.integration

ROWS = 8
BETTER = [{"metric": "perplexity", "over_base": 0.0, "over_champion": 0.0, "significance": 0.5}]
"""Of eight rows five have to say so."""
REMEMBERS = [*BETTER, {"metric": "regression_accuracy", "over_base": -0.1}]


class World:
    """Runs of several projects, and what came of them."""

    def __init__(self, bus: Bus, ground: Ground, forgot: Path) -> None:
        self.bus, self.ground, self.forgot = bus, ground, forgot

    async def train(self, project: str, name: str, **spec: Any) -> Envelope[TrainCompleted]:
        """Announce a run whose adapter does the task better than the base."""
        run = await self.ground.trained(project, name, examples=ROWS, adapter=self.forgot, **spec)
        await self.bus.publish(run)
        return run

    async def told(self, topic: Any, count: int, run: Envelope[TrainCompleted]) -> list[Any]:
        """Return the first ``count`` events of ``topic`` about a run."""
        found = await self.bus.collect(topic, count, where=lambda e: e.data.run_id == run.data.run_id)
        return [event.data for event in found]

    async def steps(self, run: Envelope[TrainCompleted], count: int) -> list[str]:
        """Return the first ``count`` stages that a run's model came to."""
        model_id = run.data.adapter.model_id
        found = await self.bus.collect(
            topics.MODEL_PROMOTED, count, where=lambda e: e.data.model_id == model_id
        )
        steps: list[ModelPromoted] = [event.data for event in found]
        return [step.stage.value for step in steps]


@pytest.mark.nightly("matrices")
async def test_who_is_judged_and_reviewed_is_promoted_refused_or_stopped(
    kafka: str, tmp_path: Path, project: str
) -> None:
    ground = make_ground(tmp_path / "ground")
    forgot, items = forgetful(ground, tmp_path / "forgot", examples=ROWS)
    (questions := tmp_path / "regression.jsonl").write_text(
        "".join(f"{item.model_dump_json()}\n" for item in items)
    )
    service = make_app(
        Settings(
            bootstrap_servers=kafka, store_url=ground.store.url, cache_dir=tmp_path / "cache",
            session_timeout_ms=30_000, eval_regression_set=questions, eval_dtype="float32", eval_threads=1,
        ),
        worker=forked("tunewheel_eval.worker"),
    )  # fmt: skip
    refused, queued, reviewed = (f"{project}-{name}" for name in ("refused", "queued", "reviewed"))
    async with Bus(kafka) as bus, running(service):
        world = World(bus, ground, forgot)
        await bus.publish(*[declared(name) for name in (refused, queued, reviewed)])
        forgetting = await world.train(refused, "forgot", criteria=REMEMBERS)
        runs = [await world.train(queued, name, criteria=BETTER) for name in ("one", "two")]
        first = await world.train(reviewed, "one", criteria=LENIENT)
        second = await world.train(reviewed, "two", criteria=LENIENT, review={"required": True})
        # All are judged before the registry promotes anybody: against the base.
        for run in (*runs, first):
            await world.told(topics.EVAL_PASSED, 1, run)
        (asked,) = await world.told(topics.REVIEW_REQUESTED, 1, second)
        async with running(registry(kafka, tmp_path)), asyncio.TaskGroup() as acts:
            acts.create_task(better_on_the_task_and_worse_on_regression_is_refused(world, forgetting))
            acts.create_task(two_queued_runs_never_promote_an_unbeaten_one(world, runs))
            acts.create_task(a_rejection_stops_a_rollout(world, first, second, asked))


async def better_on_the_task_and_worse_on_regression_is_refused(
    world: World, run: Envelope[TrainCompleted]
) -> None:
    (failed,) = await world.told(topics.EVAL_FAILED, 1, run)
    assert {check.criterion.metric: check.outcome for check in failed.checks} == {
        "perplexity": "met", "regression_accuracy": "missed"
    }  # fmt: skip
    figures = {one.role: one.metrics["regression_accuracy"] for one in failed.contestants}
    assert (figures[Role.BASE], figures[Role.CANDIDATE]) == (1.0, 0.0)
    assert await world.steps(run, 1) == ["rejected"]


async def two_queued_runs_never_promote_an_unbeaten_one(
    world: World, runs: Sequence[Envelope[TrainCompleted]]
) -> None:
    """Both are the same model, better than the base; the second is not shown to beat the first."""
    one, two = runs
    (undecided,) = await world.told(topics.EVAL_UNDECIDED, 1, two)
    champions = [each.model_id for each in undecided.contestants if each.role is Role.CHAMPION]
    assert champions == [one.data.adapter.model_id]
    assert await world.steps(one, 2) == ["evaluated", "production"]
    assert await world.steps(two, 3) == ["evaluated", "undecided", "shadow"], "a trial must show the rest"


async def a_rejection_stops_a_rollout(
    world: World, first: Envelope[TrainCompleted], second: Envelope[TrainCompleted], asked: ReviewRequested
) -> None:
    """One person answers every item and approves; the candidate gets a share; another person rejects."""
    champion, candidate = first.data.adapter.model_id, second.data.adapter.model_id
    reader = Reader(world.bus, first.project)
    await reader.desired(champion)
    assert asked.review_set is not None
    items = ReviewSet.model_validate_json(await world.ground.store.get(asked.review_set)).items
    assert len(items) == ROWS
    said = {"project": asked.project, "run_id": asked.run_id, "review_id": asked.review_id}
    answers = [
        ReviewAnswered.model_validate(
            {**said, "reviewer": "ada", "item_id": item.item_id, "preference": "better"}
        )
        for item in items
    ]
    await world.bus.publish(*[new_event(answer, source="/test") for answer in answers])
    await world.bus.publish(submission(said, "ada", "approved"))
    # Approved, it waits for a verdict against the champion of now; the approval holds for that one.
    canary = await reader.desired(champion, candidate)
    await world.bus.publish(submission(said, "bob", "rejected", comment="promises refunds"))
    after = await reader.newer(canary, champion)
    assert after.desired.routes[0].percent == 100
    (out,) = await reader.first(topics.MODEL_ROLLEDBACK, 1)
    assert (out.model_id, out.restored, out.decided_by) == (candidate, champion, "review")
    assert out.reason == "rejected by bob: promises refunds"


def submission(
    said: dict[str, Any], reviewer: str, verdict: str, *, comment: str = ""
) -> Envelope[ReviewSubmitted]:
    values = {**said, "reviewer": reviewer, "verdict": verdict, "comment": comment}
    return new_event(ReviewSubmitted.model_validate(values), source="/test")
