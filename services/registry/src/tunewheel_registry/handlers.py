"""The topics that the registry reads. Every event goes to the ledger, which decides and publishes."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_runtime.service import Service

from tunewheel_registry.ledger import Ledger


def register(service: Service, ledger: Ledger) -> None:
    """Subscribe the registry. ``Ledger.handle`` publishes the resulting events itself."""

    @service.on(topics.TRAIN_COMPLETED)
    async def on_train_completed(event: Envelope[TrainCompleted]) -> None:
        await ledger.handle(event)

    @service.on(topics.EVAL_PASSED)
    async def on_eval_passed(event: Envelope[EvalPassed]) -> None:
        await ledger.handle(event)

    @service.on(topics.EVAL_FAILED)
    async def on_eval_failed(event: Envelope[EvalFailed]) -> None:
        await ledger.handle(event)

    @service.on(topics.EVAL_UNDECIDED)
    async def on_eval_undecided(event: Envelope[EvalUndecided]) -> None:
        await ledger.handle(event)

    @service.on(topics.ROLLOUT_JUDGED)
    async def on_rollout_judged(event: Envelope[RolloutJudged]) -> None:
        await ledger.handle(event)

    @service.on(topics.MODEL_COMMANDED)
    async def on_model_commanded(event: Envelope[ModelCommanded]) -> None:
        await ledger.handle(event)

    @service.on(topics.PROJECT_DECLARED)
    async def on_project_declared(event: Envelope[ProjectDeclared]) -> None:
        await ledger.redeclare(event)
