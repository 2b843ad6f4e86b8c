"""Publishes the training process's messages as events, at a limited rate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.training import TrainPlanned, TrainProgressed, TrainStarted
from tunewheel_contracts.fields import shared
from tunewheel_contracts.formats.plan import TrainPlan

from tunewheel_train.progress import Alive, Message, Planned, Progressed, Started, Warned
from tunewheel_train.runs.runs import Run

log = structlog.get_logger(__name__)
RETOLD_SECONDS = 30.0
"""During a long step the latest progress is published again after so many seconds."""


class Teller:
    """Publishes train.planned, train.started and train.progressed of a run; ``clock`` gives seconds."""

    def __init__(
        self,
        run: Run,
        publish: Callable[[Event], Awaitable[None]],
        progress_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._run = run
        self._publish = publish
        self._progress_seconds = progress_seconds
        self._clock = clock
        self._last_step = self._last = self._stepped = float("-inf")
        self._latest: Progressed | None = None
        self.step = 0
        self.total_steps = 0
        self.plan: TrainPlan | None = None
        """The latest plan."""

    async def tell(self, message: Message) -> None:
        """Publish the event for ``message``, if there is one."""
        if isinstance(message, Planned):
            await self._planned(message)
        elif isinstance(message, Started):
            await self._started(message)
        elif isinstance(message, Progressed):
            await self._progressed(message)
        elif isinstance(message, Alive):
            await self._alive()
        elif isinstance(message, Warned):
            log.warning("training_warned", run_id=self._run.run_id, reason=message.reason)

    async def _planned(self, message: Planned) -> None:
        self.plan = message.plan
        await self._publish(TrainPlanned(**shared(TrainPlanned, self._run, message)))

    async def _started(self, message: Started) -> None:
        self.step, self.total_steps = message.resumed_from_step, message.total_steps
        self._latest = None
        method = self._run.recipe.method
        await self._publish(TrainStarted(**shared(TrainStarted, self._run, message), method=method))

    async def _progressed(self, message: Progressed) -> None:
        self.step, self._latest = message.step, message
        now = self._stepped = self._clock()
        if message.step == message.total_steps or now - self._last_step >= self._progress_seconds:
            self._last_step = now
            await self._publish_step(message, now)

    async def _alive(self) -> None:
        """Publish the latest step again, with the time that the next one has taken so far."""
        now = self._clock()
        if self._latest is not None and now - self._last >= max(RETOLD_SECONDS, self._progress_seconds):
            await self._publish_step(self._latest, now, waited=now - self._stepped)

    async def _publish_step(self, message: Progressed, now: float, waited: float | None = None) -> None:
        self._last = now
        await self._publish(
            TrainProgressed(
                project=self._run.project,
                run_id=self._run.run_id,
                since_step_seconds=waited,
                **message.model_dump(exclude={"kind"}),
            )
        )
