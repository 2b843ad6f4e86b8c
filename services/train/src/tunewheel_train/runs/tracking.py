"""Reports a run to an experiment tracker, in addition to the log.

The tracker may be slow or away. A run waits for it only some seconds at its end, and never fails because of
it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping

import structlog
from tunewheel_contracts.formats.run import RunManifest

from tunewheel_train.progress import Message, Progressed
from tunewheel_train.runs.mlflow_store import MlflowStore
from tunewheel_train.runs.runs import Run

log = structlog.get_logger(__name__)
MOST_STEPS = 10_000
"""The most steps that are kept while the store is away. Then the oldest are dropped."""
RETRY_SECONDS = 30.0
END_SECONDS = 30.0


class Tracker:
    """Sends one run's figures to ``store``; without a store it does nothing."""

    def __init__(
        self,
        run: Run,
        store: MlflowStore | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        end_seconds: float = END_SECONDS,
    ) -> None:
        self._run = run
        self._store = store
        self._clock = clock
        self._end_seconds = end_seconds
        self._steps: deque[Progressed] = deque(maxlen=MOST_STEPS)
        self._sending: asyncio.Task[None] | None = None
        self._not_before = float("-inf")
        self._warned = False

    def saw(self, message: Message) -> None:
        """Keep the figures of a step, and send them in the background."""
        if self._store is None or not isinstance(message, Progressed):
            return
        self._steps.append(message)
        idle = self._sending is None or self._sending.done()
        if idle and self._clock() >= self._not_before:
            self._sending = asyncio.create_task(self._try(self._send), name="track-run")

    async def completed(self, manifest: RunManifest) -> None:
        """Send the remaining figures and the manifest."""
        await self._end(lambda store, mlflow_id: store.completed(mlflow_id, manifest))

    async def measured(self, metrics: Mapping[str, float], steps: int) -> None:
        """Send the remaining figures and what was measured of a run of a sweep."""
        await self._end(lambda store, mlflow_id: store.measured(mlflow_id, metrics, steps))

    async def failed(self, reason: str) -> None:
        """Send the remaining figures and why the run failed."""
        await self._end(lambda store, mlflow_id: store.failed(mlflow_id, reason))

    async def _end(self, last: Callable[[MlflowStore, str], None]) -> None:
        if self._store is None:
            return

        async def finish() -> None:
            if self._sending is not None:
                await asyncio.wait({self._sending})
            await self._try(lambda: self._send(last))

        try:
            async with asyncio.timeout(self._end_seconds):
                await finish()
        except TimeoutError:
            self._warn("it does not answer")

    async def _try(self, send: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(send)
        except Exception as error:  # no fault of the tracker may stop the run
            self._not_before = self._clock() + RETRY_SECONDS
            self._warn(_without_password(f"{type(error).__name__}: {error}")[:300])

    def _send(self, last: Callable[[MlflowStore, str], None] | None = None) -> None:
        assert self._store is not None
        tracked = self._store.open(self._run)
        known = tracked.last_step
        while self._steps:
            # A resumed run repeats steps with the same figures: do not send them twice.
            news = {step.step: step for step in tuple(self._steps) if step.step > known}
            self._store.log(tracked.mlflow_id, list(news.values()))
            known = max([known, *news])
            while self._steps and self._steps[0].step <= known:
                self._steps.popleft()
        if last is not None:
            last(self._store, tracked.mlflow_id)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            log.warning("run_not_tracked", run_id=self._run.run_id, reason=reason)
        self._warned = True


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)
