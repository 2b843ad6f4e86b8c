"""The thread that generates. It takes requests from a bounded queue and advances the batches step by step."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from tunewheel_generation.constraint import GrammarBroken
from tunewheel_generation.generation import Form, Generation, Progress

from tunewheel_engine.errors import ConstraintFailed, EngineFailed, ModelNotFound, Overloaded

if TYPE_CHECKING:
    from tunewheel_generation.lane import Lane

_log = structlog.get_logger(__name__)
Event = Progress | EngineFailed


class Scheduler:
    """A queue of requests, and one batch (lane) for each form of the base and for each whole model.

    ``on_failure`` is called in the event loop when generation fails, after every request got the error.
    """

    def __init__(self, *, max_queue: int, max_batch: int, on_failure: Callable[[], None]) -> None:
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._on_failure = on_failure
        self._lanes: dict[Form, Lane] = {}
        self._leaving: set[Form] = set()
        self._waiting: deque[Generation] = deque()
        self._under_way: dict[Generation, float] = {}
        self._outbox: list[tuple[Generation, Event]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._failed = False
        self._seconds_per_request = 1.0
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread. Events are delivered in ``loop``."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step. Unfinished requests get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def add_lane(self, form: Form, lane: Lane) -> None:
        """Serve requests for ``form`` from now on."""
        with self._changed:
            self._lanes[form] = lane

    def remove_lane(self, form: Form) -> None:
        """Accept no more requests for ``form``. Its weights are dropped once its running requests are
        done."""
        with self._changed:
            self._leaving.add(form)
            self._changed.notify_all()

    def wait_until_dropped(self, *, timeout_seconds: float) -> None:
        """Return once all removed lanes are dropped, or after ``timeout_seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._leaving or not self.healthy, timeout_seconds)

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and not self._failed and not self._stopping

    @property
    def running(self) -> int:
        return sum(lane.running for lane in list(self._lanes.values()))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, *generations: Generation) -> None:
        """Queue the answers of one request, all of them or none.

        Raises Overloaded when the queue is full, EngineFailed when the engine is stopping, ModelNotFound when
        the model was unloaded after the request had named it.
        """
        with self._changed:
            if not self.healthy:
                raise EngineFailed("the engine is stopping; send the request again")
            if any(one.form in self._leaving or one.form not in self._lanes for one in generations):
                raise ModelNotFound("the model was unloaded just now; load it again", param="model")
            if len(self._under_way) + len(generations) > self._max_batch + self._max_queue:
                raise Overloaded(
                    f"{len(self._under_way)} requests are being served or waiting; try again later",
                    retry_after=self._retry_after(),
                )
            self._under_way |= dict.fromkeys(generations, time.monotonic())
            self._waiting += generations
            self._changed.notify_all()

    def deliver(self, generation: Generation, event: Progress | GrammarBroken) -> None:
        """Note an event of the current step. The lanes call this."""
        if isinstance(event, GrammarBroken):
            self._outbox.append((generation, ConstraintFailed(event.reason)))
        else:
            self._outbox.append((generation, event))

    def _retry_after(self) -> int:
        """Seconds until a place is likely to be free."""
        return min(60, max(1, math.ceil(self._seconds_per_request / self._max_batch)))

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._step()
                self._hand_over()
            self._tell_all("the engine is stopping; send the request again")
        except Exception as error:
            _log.exception("generation_failed")
            self._failed = True
            self._tell_all(f"generation failed ({type(error).__name__}); the engine is stopping")
            self._loop.call_soon_threadsafe(self._on_failure)

    def _step(self) -> None:
        """Do one step of every batch. This is a method of its own, so that its local variables hold no
        reference to a lane while the thread waits; such a reference would keep a dropped lane's memory."""
        for form, lane in list(self._lanes.items()):
            lane.work(lambda form=form: self._next_for(form))

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._stopping:
                self._forget_cancelled()
                self._drop_left()
                if self._waiting or self.running:
                    return True
                self._changed.wait()
            return False

    def _forget_cancelled(self) -> None:
        for generation in [one for one in self._under_way if one.cancelled]:
            del self._under_way[generation]
            if generation in self._waiting:
                self._waiting.remove(generation)

    def _drop_left(self) -> None:
        """Drop the removed lanes that have no requests any more."""
        if not self._leaving:
            return
        busy = {generation.form for generation in self._under_way}
        for form in self._leaving - busy:
            self._leaving.discard(form)
            self._lanes.pop(form, None)
            self._changed.notify_all()

    def _next_for(self, form: Form) -> Generation | None:
        """Take the longest-waiting request for ``form``."""
        with self._changed:
            for generation in self._waiting:
                if generation.form == form and not generation.cancelled:
                    self._waiting.remove(generation)
                    return generation
        return None

    def _hand_over(self) -> None:
        events, self._outbox = self._outbox, []
        with self._changed:
            for generation, event in events:
                if isinstance(event, EngineFailed) or event.finish_reason is not None:
                    began = self._under_way.pop(generation, time.monotonic())
                    self._seconds_per_request += 0.1 * (time.monotonic() - began - self._seconds_per_request)
        if events:
            self._loop.call_soon_threadsafe(_deliver_all, events)

    def _tell_all(self, message: str) -> None:
        with self._changed:
            events: list[tuple[Generation, Event]] = [(one, EngineFailed(message)) for one in self._under_way]
            self._under_way.clear()
            self._waiting.clear()
        self._loop.call_soon_threadsafe(_deliver_all, events)


def _deliver_all(events: list[tuple[Generation, Event]]) -> None:
    for generation, event in events:
        generation.deliver(event)
