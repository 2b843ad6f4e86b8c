"""Whose evaluation is next: handlers, slots and evaluations are the real ones, measured here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.events.evaluation import EvalPassed, EvalRequested
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.handlers import register
from tunewheel_eval.requests import Asked
from tunewheel_eval.reviewing.asking import Notices
from tunewheel_eval.settings import Settings
from tunewheel_eval.waiting import Turns
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.webhooks import Webhook
from tunewheel_testing.log import lease, wrap
from tunewheel_testing.subscribed import Subscribed

from .conftest import make_spec

pytestmark = pytest.mark.usefixtures("measured_here")
MakeRun = Callable[..., Awaitable[TrainCompleted]]
TASK = {"system_prompt": "You are the help desk.", "max_output_tokens": 8}


class Noted(Evaluator):
    """Notes whose evaluation has ended, while it still has its slot."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.ended: list[str] = []

    async def evaluate(self, event: TrainCompleted, *values: Any, **more: Any) -> Any:
        found = await super().evaluate(event, *values, **more)
        self.ended.append(f"{event.project} {event.run_id}")
        return found

    async def evaluate_again(self, asked: Asked, lease: Lease) -> Any:
        found = await super().evaluate_again(asked, lease)
        self.ended.append(f"{asked.request.project} {asked.request.request}")
        return found


@pytest.fixture
async def evaluator(store: ObjectStore, tmp_path: Path, regression_set: Path) -> Noted:
    settings = Settings(
        cache_dir=tmp_path / "cache", eval_regression_set=regression_set, eval_threads=1, eval_batch_size=4
    )
    made = Noted(store, settings, Erased())
    await made.prepare()
    return made


async def test_a_flood_of_evaluations_delays_those_of_others_by_its_turns_and_not_by_its_jobs(
    real_run: MakeRun, store: ObjectStore, evaluator: Noted, examples: Any
) -> None:
    """Finished runs and requests wait for the same slot."""
    service: Any = Subscribed("eval", store)
    turns = Turns(lambda *_: None, 600.0, Slots(1))
    settings = Settings()
    register(service, evaluator, Erased(), Notices(store, Webhook.of(settings), settings), turns)

    async def completed(project: str, number: int) -> TrainCompleted:
        name = f"{project}-{number}"
        asked = make_spec(project=project, task=TASK)
        return await real_run(asked, run_id=name, dataset_id=f"ds-{name}", holdout=examples[:2])

    def again(request: str) -> EvalRequested:
        return EvalRequested(project="flood", run_id="flood-0", request=request)

    before = await completed("flood", 0)
    verdict = await service.on_train_completed(wrap(before), lease())
    assert isinstance(verdict.data, EvalPassed)
    flood = [await completed("flood", 1), again("a"), await completed("flood", 2), again("b")]
    others = [await completed("other", 1), await completed("other", 2), await completed("quiet", 1)]
    evaluator.ended.clear()
    calls = [
        (service.on_eval_requested if isinstance(data, EvalRequested) else service.on_train_completed)(
            wrap(data), lease()
        )
        for data in (*flood, *others)
    ]
    verdicts = await asyncio.gather(*calls)
    assert {type(one.data) for one in verdicts} == {EvalPassed}
    assert evaluator.ended == [
        "flood flood-1", "other other-1", "quiet quiet-1",
        "flood a", "other other-2",
        "flood flood-2", "flood b",
    ]  # fmt: skip
